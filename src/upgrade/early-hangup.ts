let hungUp = false;
const note = (): void => {
  hungUp = true;
};

/** Bears SIGHUP from now on, and remembers it. */
export function noteHangups(): void {
  process.on('SIGHUP', note);
}

/** Hands SIGHUP to whoever serves it from now on, with one that came before. */
export function onHangup(serve: () => void): void {
  process.on('SIGHUP', serve);
  process.off('SIGHUP', note);
  if (hungUp) serve();
}
