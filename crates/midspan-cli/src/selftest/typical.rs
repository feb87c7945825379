//! Frames as a model expects them, with W and Y drawn from its own tables. Nearly any bytes are then the payload of
//! some frame, so a corruption is as hard to notice as possible.

use crate::selftest::draw::Draw;
use midspan::entropy::Bank;
use midspan::exact::{Arm, Network, Serial, State};
use midspan::model::CodecModel;
use midspan::model::synthetic::Random;

/// Draws frames of one model along a timeline.
#[derive(Clone)]
pub(super) struct Typical {
    network: std::sync::Arc<Network>,
    state: State,
    max_rewind: u32,
    /// The side indices of the context's frames, if the model takes any.
    side: Vec<u32>,
}

impl Typical {
    /// Begins with an empty context.
    pub(super) fn new(model: &CodecModel, max_rewind: u32) -> Typical {
        let network = Network::new(model.decoder_network(), Arm::best());
        Typical { state: State::new(&network, max_rewind), network: network.into(), max_rewind, side: Vec::new() }
    }

    /// Begins a new context, with another model if one is given.
    pub(super) fn begin(&mut self, model: Option<&CodecModel>) {
        match model {
            Some(model) => *self = Typical::new(model, self.max_rewind),
            None => {
                self.state.reset();
                self.side.clear();
            }
        }
    }

    /// Rewinds to a frame of the context.
    pub(super) fn rewind(&mut self, position: u64) {
        // The caller rewinds no farther than the state was made for.
        let _ = self.state.truncate(position);
        self.side.truncate(usize::try_from(position).unwrap_or(usize::MAX));
    }

    /// Takes W, `[T, C]`, and the side indices of frames that were made elsewhere.
    pub(super) fn follow(&mut self, model: &CodecModel, w: &[i16], side: &[u32], quality: usize) -> Vec<i32> {
        self.side.extend_from_slice(side);
        let inputs = inputs(model, w, &self.side);
        let mut output = Vec::new();
        let _ = self.network.run(&mut self.state, &inputs, quality, &mut output, &Serial);
        output
    }

    /// Draws W and Y of `frames` frames that the model expects, with these side indices.
    pub(super) fn draw(
        &mut self,
        model: &CodecModel,
        quality: usize,
        frames: usize,
        side: &[u32],
        random: &mut Random,
    ) -> [Vec<i16>; 2] {
        let (channels, width) = (model.hyper_prior_width(), model.hidden_width());
        let w: Vec<i16> = (0..frames * channels)
            .map(|place| value(model.hyper_prior(), quality * channels + place % channels, 0, model.w_range(), random))
            .collect();
        let output = self.follow(model, &w, side, quality);
        let bases: Vec<usize> = model.target_bases().map(|base| base as usize).collect();
        let mut y = Vec::with_capacity(frames * width);
        for frame in output.chunks_exact(2 * width) {
            let (means, scales) = frame.split_at(width);
            for (mean, scale) in means.iter().zip(scales) {
                // Spec 6.2.
                let (bits, base) = (model.fraction_bits()[*scale as usize], bases[*scale as usize]);
                let q = if bits == 6 { *mean } else { (mean + (1 << (5 - bits))) >> (6 - bits) };
                let (k, fraction) = (q >> bits, q & ((1 << bits) - 1));
                y.push(value(model.target(), base + fraction as usize, k, model.y_range(), random));
            }
        }
        [w, y]
    }
}

/// What g_y takes (spec 5.5, step 1), `[T, C + D]`: W of the last T frames, `[T, C]`, and the sums of their side indices.
/// `side` are those of all frames of the context.
pub(super) fn inputs(model: &CodecModel, w: &[i16], side: &[u32]) -> Vec<i16> {
    let channels = model.hyper_prior_width();
    let Some(own) = model.side() else { return w.to_vec() };
    let sums = own.sums(side, w.len() / channels);
    w.chunks_exact(channels).zip(sums.chunks_exact(own.width())).flat_map(|(w, sums)| [w, sums].concat()).collect()
}

/// Draws a value of a table, never an escape.
fn value(bank: &Bank, table: usize, shift: i32, (low, high): (i16, i16), random: &mut Random) -> i16 {
    let boundaries = bank.boundaries(table);
    let place = random.below(1 << 16);
    let place = boundaries.partition_point(|boundary| usize::from(*boundary) <= place);
    let place = place.clamp(1, boundaries.len() - 1) as i32;
    let (low, high) = (i32::from(low), i32::from(high));
    (bank.first(table) + shift.clamp(low, high) + place - 1).clamp(low, high) as i16
}
