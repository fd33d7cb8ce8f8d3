import { AT_ONCE, type NodeFault } from './fault.ts';

export const cut: NodeFault = {
  name: 'connections cut',
  lasts: AT_ONCE,
  start: ({ network }) => network.cut(),
  stop() {},
};

export const slow: NodeFault = {
  name: 'network slow for a while',
  lasts: [500, 3000],
  start({ network }, random) {
    network.delayMs = random.between(5, 300);
  },
  stop({ network }) {
    network.delayMs = 0;
  },
};

export const silent: NodeFault = {
  name: 'network silent for a while',
  lasts: [200, 8000],
  start({ network }) {
    network.silent = true;
  },
  stop({ network }) {
    network.silent = false;
    // The dropped bytes never arrive, so the open connections are unusable.
    network.cut();
  },
};

export const corrupt: NodeFault = {
  name: 'bytes changed on the way',
  lasts: [500, 500],
  start({ network }, random) {
    network.corrupt = 1 + Math.floor(random.between(0, 3));
  },
  stop({ network }) {
    network.corrupt = 0;
  },
};
