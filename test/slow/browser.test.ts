import t from 'tap';
import { browserProgram, Page } from '../support/browser.ts';
import { Daemon } from '../support/harness.ts';

const program = browserProgram();
const skip = program === null && 'no browser is installed (chromium-headless-shell)';

t.test('a browser without credentials reads /docs under the project’s name, without errors', { skip }, async (t) => {
  const daemon = await Daemon.start(t);
  const page = await Page.open(t, program!);
  await page.goTo(`http://127.0.0.1:${daemon.port}/docs/`);
  await page.until(`document.querySelectorAll('.opblock').length >= 20`);
  t.equal(await page.evaluate('document.title'), 'waitd');
  t.equal(await page.evaluate(`document.querySelector('.info .title').firstChild.textContent.trim()`), 'waitd');
  t.notOk(await page.evaluate(`document.querySelector('.topbar') !== null`), 'no other name appears');
  // The details of an operation, with its schemas and examples.
  await page.evaluate(`document.querySelector('.opblock-post .opblock-summary-control').click()`);
  await page.until(`document.querySelector('.opblock.is-open .responses-table') !== null`);
  t.same(page.errors, []);
});
