// node run.mjs FILE.wasm check: compares the SIMD arm with the plain one.
// node run.mjs FILE.wasm time MODEL.safetensors [ROUNDS]: medians, in milliseconds a frame, all in turn.
import { readFileSync } from "node:fs";
import { performance } from "node:perf_hooks";

const [file, what, model, rounds] = process.argv.slice(2);
const { instance } = await WebAssembly.instantiate(readFileSync(file), {});
const wasm = instance.exports;
const names = ["plain", "portable (SIMD128)"].slice(0, wasm.arms());
const median = (times) => times.sort((a, b) => a - b)[times.length >> 1];
const timed = (work) => {
  const start = performance.now();
  work();
  return performance.now() - start;
};

if (what === "check") {
  if (wasm.arms() !== 2) throw new Error("the portable arm is missing: built without simd128");
  console.log(`portable arm (SIMD128): ${wasm.check(1)} networks equal plain`);
} else if (what === "time") {
  const bytes = readFileSync(model);
  const FRAMES = 64;
  const times = new Map();
  const add = (name, time) => times.set(name, [...(times.get(name) ?? []), time]);
  for (let round = 0; round < Number(rounds ?? 5); round++) {
    names.forEach((name, arm) => {
      for (const h of [0, 1]) {
        wasm.prepare_steps(arm, h);
        for (const frames of [1, 64]) {
          const each = timed(() => wasm.step(frames)) / 64;
          add(`${h ? "h  " : "g_y"} ${frames === 1 ? "step " : "batch"} ${name}`, each);
        }
      }
      const at = wasm.room(bytes.length);
      new Uint8Array(wasm.memory.buffer, at, bytes.length).set(bytes);
      wasm.prepare_decoder(arm, FRAMES);
      for (let frame = 0; frame < FRAMES; frame++) {
        let values;
        const time = timed(() => (values = wasm.decode()));
        if (!values) throw new Error("the stream ended early");
        add(`decode of the default model ${name}`, time);
      }
    });
  }
  for (const [name, all] of [...times].sort()) {
    console.log(`${name}: median ${median(all).toFixed(3)}, least ${all[0].toFixed(3)}`);
  }
} else {
  throw new Error("check or time");
}
