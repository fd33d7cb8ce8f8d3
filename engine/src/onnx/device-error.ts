/** Failure of a GPU. The device may be lost or out of memory, so no later run can be trusted. */
export class DeviceError extends Error {}
