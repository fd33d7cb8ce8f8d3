/** Failure on a GPU. The device may be lost or out of memory, so that no later run can be trusted. */
export class DeviceError extends Error {}
