#!/usr/bin/env node
// The command of the package. Node.js of any age can read this file, so that an old one says what is missing instead of
// calling the program a syntax error.
if (Number.parseInt(process.versions.node, 10) < 24) {
  process.stderr.write(['waitd: this is Node.js ', process.versions.node, ', and it takes 24 or newer\n'].join(''));
  process.exit(1);
}
import('./main.js');
