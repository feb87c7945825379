// The package for Node, where the module starts with the import.

import { readFileSync } from 'node:fs';

import { initSync } from './runtime.js';

initSync(readFileSync(new URL('./bindings_bg.wasm', import.meta.url)));

export * from './index.js';
