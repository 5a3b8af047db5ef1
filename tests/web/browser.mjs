// Drive a page of `mrpose web` in a headless Chromium: one line of JSON in (a job), one line of JSON out (what was seen).
//
// node browser.mjs MODULES, where MODULES is a folder into which npm has installed puppeteer-core and @sparticuz/chromium.
// A job: {args, size, dark, steps}. A step is {goto: address}, {evaluate: source of an async function body, argument},
// {waitFor: source of an expression, timeout}, {upload: [files]}, {screenshot: file} or {keys: [names]}.

import {createRequire} from 'node:module';
import path from 'node:path';
import fs from 'node:fs';

const require = createRequire(path.join(process.argv[2], 'node_modules', 'any.js'));
const puppeteer = require('puppeteer-core');
const sparticuz = require('@sparticuz/chromium');
const chromium = sparticuz.default ?? sparticuz;

const job = JSON.parse(fs.readFileSync(0, 'utf8'));
const executablePath = process.env.CHROME ?? (await chromium.executablePath());
const browser = await puppeteer.launch({
  executablePath,
  headless: 'shell',
  args: ['--no-sandbox', '--disable-dev-shm-usage', '--enable-precise-memory-info', '--js-flags=--expose-gc', ...(job.args ?? [])],
  protocolTimeout: 600_000,
});
const seen = {results: [], requests: [], errors: []};
try {
  const page = await browser.newPage();
  const [width, height] = job.size ?? [1000, 900];
  await page.setViewport({width, height, deviceScaleFactor: 1});
  await page.emulateMediaFeatures([{name: 'prefers-color-scheme', value: job.dark ? 'dark' : 'light'}]);
  page.on('request', (request) => seen.requests.push([request.method(), request.url()]));
  page.on('pageerror', (error) => seen.errors.push(String(error)));
  page.on('console', (message) => ['error', 'warn'].includes(message.type()) && seen.errors.push(message.text()));
  for (const step of job.steps) {
    if ('goto' in step) await page.goto(step.goto);
    if ('waitFor' in step) await page.waitForFunction(step.waitFor, {timeout: step.timeout ?? 120_000});
    if ('upload' in step) await (await page.$('input[type=file]')).uploadFile(...step.upload);
    if ('keys' in step) for (const key of step.keys) await page.keyboard.press(key);
    if ('screenshot' in step) await page.screenshot({path: step.screenshot, fullPage: true});
    if ('evaluate' in step) {
      const call = `(async (argument) => {${step.evaluate}})(${JSON.stringify(step.argument ?? null)})`;
      seen.results.push(await page.evaluate(call));
    }
  }
} catch (error) {
  seen.failure = String(error);
} finally {
  await browser.close();
}
console.log(JSON.stringify(seen));
