// Ends `npm install -g` where the command that it installs could not run. Node.js of any age can read this file.
if (Number.parseInt(process.versions.node, 10) < 24) {
  const cure = ', and waitd takes 24 or newer: install that first\n';
  process.stderr.write(['waitd: this is Node.js ', process.versions.node, cure].join(''));
  process.exit(1);
}
