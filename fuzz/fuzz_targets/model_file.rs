//! The model file loader: any bytes give a model or one error; a model that loads writes itself back and runs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use midspan::exact::{Arm, Network, Serial, State};
use midspan::model::CodecModel;

fuzz_target!(|data: &[u8]| {
    let Ok(model) = CodecModel::from_bytes(data, 1 << 22) else { return };
    let again = CodecModel::from_bytes(&model.to_bytes(), 1 << 23).expect("what was written loads");
    assert_eq!(again.fingerprint(), model.fingerprint());
    // Small models only: the point is that no arm overflows or panics on what the loader let through.
    let network = model.decoder_network();
    if network.multiplications() > 100_000 {
        return;
    }
    let inputs: Vec<i16> = (0..3 * network.inputs()).map(|i| if i % 2 == 0 { 32_767 } else { -32_767 }).collect();
    let outputs: Vec<Vec<i32>> = [Arm::Plain, Arm::best()]
        .iter()
        .map(|arm| {
            let network = Network::new(network, *arm);
            let mut output = Vec::new();
            network.run(&mut State::new(&network, 1), &inputs, 0, &mut output, &Serial).expect("whole frames");
            output
        })
        .collect();
    assert_eq!(outputs[0], outputs[1]);
});
