// The text of the last panic, which Rust tells before the trap.

let text = null;

export function notePanic(of) {
  text = of;
}

export function takePanic() {
  const taken = text;
  text = null;
  return taken;
}
