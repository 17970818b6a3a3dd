import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

// Nothing of a dependency runs at an install but what package.json names, and no dependency has a hole that the registry knows of.

interface Lock {
  packages: Record<string, { hasInstallScript?: boolean }>;
}
const read = (name: string): unknown => JSON.parse(readFileSync(new URL(`../${name}`, import.meta.url), 'utf8'));

const { allowScripts } = read('package.json') as { allowScripts: Record<string, boolean> };
const { packages } = read('package-lock.json') as Lock;
const scripted = Object.entries(packages)
  // The package itself, which has no path, runs its own.
  .filter(([path, { hasInstallScript }]) => path !== '' && hasInstallScript)
  .map(([path]) => path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length));
const faults = [
  ...scripted
    .filter((name) => allowScripts[name] !== true)
    .map((name) => `${name} has an install script that nobody allowed`),
  ...Object.keys(allowScripts)
    .filter((name) => !scripted.includes(name))
    .map((name) => `${name} is allowed an install script, and has none`),
];

const { stdout } = spawnSync('npm', ['audit', '--json'], { encoding: 'utf8' });
const report = JSON.parse(stdout || '{}') as { metadata?: { vulnerabilities: { total: number } }; message?: string };
if (report.metadata === undefined) console.log(`npm audit was not answered by this registry: ${report.message}`);
else if (report.metadata.vulnerabilities.total > 0) faults.push(`npm audit: ${stdout}`);

for (const fault of faults) console.log(fault);
process.exit(faults.length === 0 ? 0 : 1);
