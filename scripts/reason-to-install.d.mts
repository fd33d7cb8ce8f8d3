interface Package {
  readonly version?: string;
  readonly optional?: boolean;
  readonly link?: boolean;
  readonly dev?: boolean;
}

export type Packages = Readonly<Record<string, Package>>;

export function reasonToInstall(
  wanted: Packages,
  installed: Packages | undefined,
  serving: boolean,
): string | undefined;
