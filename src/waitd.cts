#!/usr/bin/env node
// The command of the package. Any version of Node.js can parse this file, so that an old one prints this message instead of a
// syntax error.
if (Number.parseInt(process.versions.node, 10) < 24) {
  process.stderr.write(['waitd: this is Node.js ', process.versions.node, ', but waitd needs 24 or later\n'].join(''));
  process.exit(1);
}
import('./main.js');
