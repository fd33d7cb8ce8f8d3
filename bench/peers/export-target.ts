import { execFile } from 'node:child_process';
import { join } from 'node:path';

const TRAINING = join(import.meta.dirname, '..', '..', 'training');
const SETUP =
  "peers requires Python with ptp-train to convert the target: run `pip install -e 'training[convert]'`, and set PTP_PYTHON to that Python unless it is in training/.venv";

/**
 * Converts the target of a model folder to the format of another engine with `ptp-train export`.
 *
 * @param out path of a file for GGUF, otherwise of a folder
 * @returns number of layers of the model
 * @throws Error that names the packages to install if Python or ptp-train is missing
 */
export function exportTarget(models: string, to: 'gguf' | 'transformers-js', out: string): Promise<number> {
  const python = process.env.PTP_PYTHON ?? join(TRAINING, '.venv', 'bin', 'python');
  const options = ['--to', to, '--from', models, '--out', out];
  return new Promise((resolve, reject) => {
    execFile(python, ['-m', 'ptp_train', 'export', ...options], (error, stdout, stderr) => {
      if (!error) resolve(JSON.parse(stdout).layers);
      else if (error.code === 'ENOENT' || stderr.includes('No module named')) reject(new Error(SETUP));
      else reject(new Error(`ptp-train export failed: ${stderr.trim() || error.message}`));
    });
  });
}
