/** `ptp models list|pull|rm`: lists, downloads and removes models on this machine. */
import { pullModel } from '@ptp/service-kit/models/fetch-model';
import { hubConfig } from '@ptp/service-kit/models/hub-config';
import { cachedModels, removeModel } from '@ptp/service-kit/models/model-cache';
import { ModelError } from '@ptp/service-kit/models/model-error';
import { parseModelName } from '@ptp/service-kit/models/model-name';
import { formatBytes } from '@ptp/service-kit/models/progress';
import type { Command } from 'commander';

/** Adds the subcommands to `ptp models`. */
export function addModelCommands(models: Command): void {
  models
    .command('list')
    .description('list the models on this machine')
    .action(async () => {
      const found = await cachedModels(await hubConfig(process.env));
      if (models.optsWithGlobals().json) console.log(JSON.stringify(found));
      else if (found.length > 0) console.log(tableOf(found));
      else console.error('no models on this machine; download one with: ptp models pull org/repo');
    });
  models
    .command('pull <name>')
    .description('download a model from the Hugging Face hub, or update it: org/repo[:quantisation or file]')
    .action(async (text: string) => {
      const name = parseModelName(text);
      if (!name) throw new ModelError(`\`${text}\` must be a model's name, org/repo[:quantisation or file]`);
      const { name: pulled, path } = await pullModel(await hubConfig(process.env), name, process.stderr);
      console.error(`serve it with: npm start -- --model ${pulled}`);
      console.log(path);
    });
  models
    .command('rm <name>')
    .description('remove a model from this machine; the name org/repo alone removes all files of the repository')
    .action(async (name: string) => {
      const bytes = await removeModel(await hubConfig(process.env), name);
      console.log(`removed ${name}: ${formatBytes(bytes)} freed`);
    });
}

function tableOf(models: Awaited<ReturnType<typeof cachedModels>>): string {
  const rows = models.map(({ name, quantisation = '-', bytes, path }) => [
    name,
    quantisation,
    formatBytes(bytes),
    path,
  ]);
  const table = [['NAME', 'QUANTISATION', 'SIZE', 'PATH'], ...rows];
  const widths = [0, 1, 2].map((column) => Math.max(...table.map((row) => row[column]?.length ?? 0)));
  const line = (row: string[]) => row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  ');
  return table.map(line).join('\n');
}
