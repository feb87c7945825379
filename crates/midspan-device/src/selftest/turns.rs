//! Checks what streams do in addition to coding frames: forks, rewinds, resets, exact frames, chunks of more than
//! 128 frames.

use std::borrow::Borrow;
use std::sync::Arc;

use bytes::Bytes;
use midspan::codec::{Codec, Encoder, EncoderConfig};
use midspan::exact::Arm;
use midspan::model::synthetic::Random;
use midspan::wire::{Dtype, Identity, Mode};

use super::streams::{EngineTask, Exchanged, ReadableEngine, decode, judge};
use super::{Entrant, Suite, running};
use crate::Result;

/// Turns use at most this many frames from the beginning of the hidden states.
const FRAMES: usize = 300;

/// Sends a stream with every kind of turn. Returns its bytes, and those of a fork that ended early.
fn send<E: ReadableEngine>(engine: &Arc<E>, config: EncoderConfig, hidden: &[f32]) -> Result<Vec<Bytes>, E::Error> {
    let model = engine.codec().model();
    let (width, qualities) = (model.hidden_width(), model.qualities());
    let frames = |count: usize| engine.upload(&mut hidden[..count * width].to_vec());
    let push = |encoder: &mut Encoder<E>, count: usize| encoder.push_hidden(frames(count)?.borrow());
    let rewind = |encoder: &mut Encoder<E>, count: u64| encoder.rewind(encoder.next_index().saturating_sub(count));
    let mut encoder = Encoder::new(Arc::clone(engine), config)?;
    for _ in 0..3 {
        push(&mut encoder, 1)?;
    }
    push(&mut encoder, 200)?;
    let mut fork = encoder.clone();
    push(&mut fork, 2)?;
    encoder.set_quality((qualities - 1) as u8)?;
    push(&mut encoder, 5)?;
    push(&mut fork, 1)?;
    rewind(&mut encoder, 60)?;
    push(&mut encoder, FRAMES)?;
    rewind(&mut encoder, 4)?;
    push(&mut encoder, 1)?;
    let values: Vec<u8> = hidden[..width].iter().flat_map(|value| value.to_le_bytes()).collect();
    encoder.push_exact(Dtype::F32, &values)?;
    encoder.reset()?;
    push(&mut encoder, 2)?;
    let finish = |mut encoder: Encoder<E>| encoder.end().and_then(|()| encoder.take_bytes());
    Ok(vec![finish(encoder)?, finish(fork)?])
}

/// Sends a stream with every kind of turn, and decodes the plain arm's.
struct Turns<'a>(EncoderConfig, &'a [f32], &'a [Bytes]);

impl EngineTask for Turns<'_> {
    fn on<E: ReadableEngine>(self, engine: &Arc<E>) -> Result<Exchanged, E::Error> {
        let Turns(config, hidden, reference) = self;
        let values = reference.iter().map(|bytes| decode(engine, bytes)).collect::<Result<_, E::Error>>()?;
        Ok((send(engine, config, hidden)?, values))
    }
}

impl Suite<'_> {
    /// Checks every turn in both modes.
    pub(super) fn every_turn(&self, entrants: &mut [Entrant]) -> Result<()> {
        let plain = Arc::new(Codec::with_arm(self.model.clone(), Arm::Plain)?);
        let mut random = Random::new(self.seed ^ 2);
        for mode in [Mode::Joined, Mode::Layered] {
            let hidden = self.hidden(&mut random, FRAMES, 0);
            let config = EncoderConfig::new(Identity::none()).mode(mode).lanes(2).checkpoint_interval(50);
            let bytes = send(&plain, config.clone(), &hidden)?;
            let values = bytes.iter().map(|bytes| decode(&plain, bytes)).collect::<midspan::error::Result<Vec<_>>>()?;
            let what = format!("{mode:?} mode: forks, rewinds, resets, exact frames, long chunks");
            for Entrant { implementation, tally } in running(entrants) {
                let made = self.run_task(*implementation, Turns(config.clone(), &hidden, &bytes));
                judge(tally, made, (&bytes, &values), &what);
            }
        }
        Ok(())
    }
}
