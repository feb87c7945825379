//! Calls of an encoder, drawn at random.

use super::draw::Draw;
use midspan::model::synthetic::Random;
use midspan::wire::Dtype;

/// A call of an encoder.
#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    /// Push this many frames.
    Push(usize),
    Exact(Dtype),
    Checkpoint,
    Reset,
    /// Rewind to a frame. The number is in 256ths of the way from the farthest frame that a rewind
    /// may go back to.
    Rewind(usize),
    /// Switch to a quality, modulo the number of qualities.
    Quality(usize),
    /// Switch to the next model, with a quality.
    Model(usize),
    /// Write an extension of this many bytes.
    Extension(usize),
    /// Save the encoder and load it again.
    Save,
}

impl Op {
    /// Draws a call for the streams of a campaign: mostly frames.
    pub(super) fn draw(random: &mut Random, most_frames: usize) -> Op {
        match random.below(64) {
            0..=29 => Op::Push(1),
            30..=40 => Op::Push(1 + random.below(most_frames)),
            41 => Op::Exact(random.pick(&[Dtype::F32, Dtype::F16, Dtype::Bf16])),
            42..=46 => Op::Checkpoint,
            47..=49 => Op::Reset,
            50..=54 => Op::Rewind(random.below(256)),
            55..=57 => Op::Quality(random.below(256)),
            58..=60 => Op::Model(random.below(256)),
            61 => Op::Extension(random.below(40)),
            _ => Op::Save,
        }
    }
}

/// A random value of a type, finite and not large.
pub(super) fn exact_value(random: &mut Random, dtype: Dtype) -> Vec<u8> {
    let value = random.within(-4_000, 4_000) as f32 / 512.0;
    match dtype {
        Dtype::F32 => value.to_le_bytes().to_vec(),
        Dtype::Bf16 => value.to_le_bytes()[2..].to_vec(),
        // Any mantissa and sign, with a power from 2^-5 to 2^2.
        Dtype::F16 => {
            let exponent = 10 + random.below(8) as u16;
            let rest = random.next() as u16 & 0x83ff;
            (rest | exponent << 10).to_le_bytes().to_vec()
        }
    }
}
