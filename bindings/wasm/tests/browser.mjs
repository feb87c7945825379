// Headless Chromium for the test of the page and the benchmark: a server of this folder, and a page that shows it. Needs
// playwright-core (MIDSPAN_PLAYWRIGHT names the folder that has it in its node_modules) and Chromium, at CHROMIUM or
// /usr/bin/chromium.

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

const FOLDER = fileURLToPath(new URL('..', import.meta.url));
const TYPES = {
  '.css': 'text/css',
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.json': 'application/json',
  '.wasm': 'application/wasm',
};

function serve() {
  const server = createServer((request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, 'http://localhost').pathname));
    const file = join(FOLDER, path.endsWith('/') ? `${path}index.html` : path);
    try {
      const body = readFileSync(file);
      response.writeHead(200, { 'content-type': TYPES[file.slice(file.lastIndexOf('.'))] ?? 'application/octet-stream' });
      response.end(body);
    } catch {
      response.writeHead(404);
      response.end();
    }
  });
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server)));
}

/** Opens a page of this folder; `at` is its path, or `bench` for an empty one. */
export async function open(at) {
  const require = createRequire(join(process.env.MIDSPAN_PLAYWRIGHT ?? FOLDER, 'package.json'));
  const { chromium } = require('playwright-core');
  const server = await serve();
  const profile = mkdtempSync(join(tmpdir(), 'midspan-chromium-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
    viewport: { width: 1000, height: 900 },
  });
  const page = await context.newPage();
  const errors = [];
  page.on('pageerror', (error) => errors.push(String(error)));
  page.on('console', (message) => message.type() === 'error' && errors.push(message.text()));
  const origin = `http://127.0.0.1:${server.address().port}`;
  await page.goto(at === 'bench' ? `${origin}/package.json` : `${origin}/${at}`);
  const close = async () => {
    await context.close();
    server.close();
    rmSync(profile, { recursive: true, force: true });
  };
  return { page, browser: context.browser() ?? { version: () => '' }, errors, close };
}
