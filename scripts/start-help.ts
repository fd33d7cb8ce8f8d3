import { engineAddress, oneOf, path, type Setting, type SettingType, text } from '@ptp/service-kit/settings';
import { drafterSettings } from '../drafter/src/settings.ts';
import { gatewaySettings } from '../gateway/src/settings.ts';
import { verifierSettings } from '../verifier/src/settings.ts';

const WIDTH = 100;
const INDENT = 30;

/** Type of a setting that is a path or a name on the hub. */
export const modelType = { ...path, placeholder: 'MODEL' };
/** Value of --engine that starts workers on this machine. */
export const TORCH = 'torch';
/** TORCH, or the address of an engine. */
const engineType: SettingType<string> = {
  schema: oneOf(TORCH).schema.or(engineAddress.schema),
  expected: `${TORCH}, ${engineAddress.expected}`,
  placeholder: 'ENGINE',
};
/** Flags that accept more than the services' settings do. */
const modelFlag: Setting = {
  ...gatewaySettings.model,
  type: modelType,
  doc: 'A folder exported by ptp-train, a .gguf file, a Hugging Face model folder, or a name on huggingface.co: org/repo[:quantisation or file].',
};
const draftModelFlag: Setting = {
  ...gatewaySettings.draftModel,
  type: modelType,
  doc: "A smaller model that drafts for --model, instead of the model's own drafter. It must have the same tokenizer. Takes the same forms as --model.",
};
export const engineFlag: Setting<string> = {
  ...verifierSettings.engine,
  type: engineType,
  doc: 'Engine for Hugging Face folders. `torch` runs them on PyTorch, on GPUs if there are any; the first start installs it. host:port or unix:/path is a running ptp-engine, and http://host:port a running SGLang server.',
};

/** Flags for all settings. `--listen` sets the gateway's PTP_LISTEN. */
export const allFlags: readonly Setting[] = Object.values({
  ...drafterSettings,
  ...verifierSettings,
  ...gatewaySettings,
  model: modelFlag,
  draftModel: draftModelFlag,
  engine: engineFlag,
});

/** The flags that most people need. */
export const commonFlags: readonly Setting[] = [
  modelFlag,
  draftModelFlag,
  engineFlag,
  gatewaySettings.listen,
  gatewaySettings.apiKeys,
  gatewaySettings.maxStreams,
  verifierSettings.threads,
  verifierSettings.prefixCacheMegabytes,
  gatewaySettings.draftMode,
];

/** Returns the flag of a setting. For example, --max-streams sets PTP_MAX_STREAMS. */
export function flagOf({ name }: Setting): string {
  return name.slice('PTP_'.length).toLowerCase().replaceAll('_', '-');
}

/** Returns the help text for some flags as plain text of at most 100 columns. */
export function helpOf(flags: readonly Setting[]): string {
  const all = flags === allFlags;
  return [
    'Starts a drafter, a verifier and a gateway on this machine. Ctrl-C stops them.',
    '',
    '  npm start -- [flags]',
    '',
    ...flags.flatMap((setting) => row(`--${flagOf(setting)} ${setting.type.placeholder}`, describe(setting, all))),
    ...row(
      '--drafter CHECKPOINT',
      'With --engine: a PTP drafter of ptp-train for --model, or the address of a ptp-engine that runs one.',
    ),
    ...row('--tensor-parallel N', 'With --engine torch: number of GPUs that share --model. Default: 1.'),
    ...row('--port N', 'Port of the HTTP API, replacing the one in --listen. The gRPC API uses port N + 1.'),
    ...row('--config FILE', 'YAML file with lines `flag: value`. The command line and the environment override it.'),
    ...row('-h, --help', 'Show the most important flags.'),
    ...(all ? [] : ['', 'All flags, and the environment variables for them: npm start -- --help-all']),
  ].join('\n');
}

function describe({ name, type, default: preset, doc }: Setting, all: boolean): string {
  const limits = all && type !== path && type !== modelType && type !== text ? `Must be ${type.expected}.` : '';
  const standard = preset === '' ? '' : `Default: ${preset}.`;
  return [doc, limits, standard, all ? `Variable: ${name}.` : ''].filter(Boolean).join(' ');
}

function row(flag: string, description: string): string[] {
  const lines = [''];
  for (const word of description.split(/\s+/)) {
    const line = `${lines.at(-1)}${lines.at(-1) && word ? ' ' : ''}${word}`;
    if (line.length <= WIDTH - INDENT) lines[lines.length - 1] = line;
    else lines.push(word);
  }
  const heading = `  ${flag}`;
  if (heading.length >= INDENT) lines.unshift('');
  return lines.map((line, i) => `${(i === 0 ? heading : '').padEnd(line ? INDENT : 0)}${line}`);
}
