//! A codec model for kernels: its networks, tables and quantiser in the machine's memory.

use super::layout::{self, Coding, Frames, FramesStep, Lane};
use super::machine::{Launch, Machine, Memory, Plan, Region, Work};
use super::network::{Input, KernelNetwork};
use crate::error::Result;
use midspan::engine::choice::LOG2;
use midspan::engine::payload::lane_span;
use midspan::model::{CodecModel, Map, SparseMap};

/// A codec model on a machine, for sessions whose frames are coded there.
#[derive(Debug)]
pub(crate) struct KernelModel {
    pub(super) machine: Machine,
    pub(super) g_y: KernelNetwork,
    pub(super) h: Option<KernelNetwork>,
    pub(super) width: usize,
    pub(super) channels: usize,
    /// D, the number of sums of side indices that g_y takes after W.
    pub(super) sums: usize,
    constants: Memory,
    hyper_prior: Bank,
    target: Bank,
    quantiser: Quantiser,
    w_range: (i16, i16),
    y_range: (i16, i16),
}

/// Where a bank's tables are.
#[derive(Clone, Copy, Debug)]
struct Bank {
    tables: Region,
    boundaries: Region,
}

/// Where the quantiser's rows and maps, and the values that select tables, are. The region of a part that the model
/// lacks is empty.
#[derive(Clone, Copy, Debug)]
struct Quantiser {
    offset: Region,
    step: Region,
    reciprocal_step: Region,
    analysis: Region,
    synthesis: Region,
    sparse_analysis: Sparse,
    sparse_synthesis: Sparse,
    scales: Region,
    logarithms: Region,
}

/// Where the rows of a sparse map are: the first entry of each, the channels that entries read, and their weights.
#[derive(Clone, Copy, Debug, Default)]
struct Sparse {
    first: Region,
    index: Region,
    weight: Region,
}

impl Sparse {
    /// Appends a map's rows, if it is sparse.
    fn append(plan: &mut Plan, map: Option<&Map>) -> Sparse {
        let Some(SparseMap { count, index, weight }) = map.and_then(Map::sparse) else { return Sparse::default() };
        let ends = count.iter().scan(0_u32, |end, count| {
            *end += u32::from(*count);
            Some(*end)
        });
        let first: Vec<u32> = std::iter::once(0).chain(ends).collect();
        Sparse { first: plan.append(&first), index: plan.append(index), weight: plan.append(weight) }
    }
}

/// Room for values on their way through a map.
#[derive(Clone, Copy, Debug)]
pub(super) struct MapRoom {
    input: Region,
    done: Region,
    errors: Region,
}

impl MapRoom {
    /// `frames` with the addresses of the room.
    pub(super) fn of(self, work: &Work<'_>, frames: Frames) -> Frames {
        Frames { map_input: work.at(self.input), done: work.at(self.done), errors: work.at(self.errors), ..frames }
    }
}

/// The frames of a step, with the quality and the rate weight of each.
pub(super) struct Rows {
    pub count: usize,
    pub quality: Region,
}

impl KernelModel {
    /// Uploads a model to a machine.
    ///
    /// # Errors
    /// [`crate::Error::Device`].
    pub(super) fn new(model: &CodecModel, machine: &Machine) -> Result<KernelModel> {
        let mut plan = Plan::default();
        let mut bank = |bank| {
            let (tables, boundaries) = layout::bank(bank);
            Bank { tables: plan.append(&tables), boundaries: plan.append(&boundaries) }
        };
        let (hyper_prior, target) = (bank(model.hyper_prior()), bank(model.target()));
        let rows = |row: &dyn Fn(usize) -> Vec<f32>| (0..model.qualities()).flat_map(row).collect::<Vec<f32>>();
        let scales = model.fraction_bits().iter().zip(model.target_bases());
        let scales: Vec<i32> = scales.flat_map(|(bits, base)| [i32::from(*bits), base as i32]).collect();
        let quantiser = Quantiser {
            offset: plan.append(&rows(&|q| model.offset(q).to_vec())),
            step: plan.append(&rows(&|q| model.step(q).to_vec())),
            reciprocal_step: plan.append(&rows(&|q| model.reciprocal_step(q).unwrap_or_default().to_vec())),
            analysis: plan.append(model.analysis().and_then(Map::full).unwrap_or_default()),
            synthesis: plan.append(model.synthesis().and_then(Map::full).unwrap_or_default()),
            sparse_analysis: Sparse::append(&mut plan, model.analysis()),
            sparse_synthesis: Sparse::append(&mut plan, model.synthesis()),
            scales: plan.append(&scales),
            logarithms: plan.append(&LOG2),
        };
        Ok(KernelModel {
            g_y: KernelNetwork::new(model.decoder_network(), machine)?,
            h: model.encoder_network().map(|h| KernelNetwork::new(h, machine)).transpose()?,
            width: model.hidden_width(),
            channels: model.hyper_prior_width(),
            sums: model.side_width(),
            constants: machine.holding(plan.image())?,
            hyper_prior,
            target,
            quantiser,
            w_range: model.w_range(),
            y_range: model.y_range(),
            machine: machine.clone(),
        })
    }

    /// g_y.
    pub(crate) fn g_y(&self) -> &KernelNetwork {
        &self.g_y
    }

    /// g_y's input: W, \[ΣT, C\], and the sums of side indices, \[ΣT, D\], as the regions of a running plan.
    pub(super) fn input_of_g_y(&self, work: &Work<'_>, w: Region, sums: Region) -> Input {
        Input { values: work.at(w), sums: work.at(sums), sum_count: self.sums }
    }

    /// The step that finishes quantising with a map before the quantiser.
    pub(super) fn analysis_step(&self) -> Option<FramesStep> {
        let Quantiser { analysis, sparse_analysis, .. } = &self.quantiser;
        match (analysis.bytes > 0, sparse_analysis.first.bytes > 0) {
            (true, _) => Some(FramesStep::QuantiseMapped),
            (_, true) => Some(FramesStep::QuantiseRun),
            _ => None,
        }
    }

    /// The step that finishes a reconstruction with a map after the quantiser.
    pub(super) fn synthesis_step(&self) -> Option<FramesStep> {
        let Quantiser { synthesis, sparse_synthesis, .. } = &self.quantiser;
        match (synthesis.bytes > 0, sparse_synthesis.first.bytes > 0) {
            (true, _) => Some(FramesStep::ReconstructMapped),
            (_, true) => Some(FramesStep::ReconstructRun),
            _ => None,
        }
    }

    /// Whether Y is chosen in runs of its own.
    pub(super) fn chooses_in_runs(&self) -> bool {
        self.analysis_step() == Some(FramesStep::QuantiseRun)
    }

    /// Room for what a map with this last step needs of so many values: those that pass through it, and behind a sparse
    /// one what is done of them, and errors.
    pub(super) fn map_room(&self, plan: &mut Plan, values: usize, step: Option<FramesStep>) -> MapRoom {
        let runs = matches!(step, Some(FramesStep::QuantiseRun | FramesStep::ReconstructRun));
        let mut room = |needed: bool| plan.room::<f32>(if needed { values } else { 0 });
        MapRoom { input: room(step.is_some()), done: room(runs), errors: room(runs) }
    }

    /// The rows of a sparse map; null pointers without one.
    fn rows(&self, map: Sparse) -> layout::Rows {
        let Sparse { first, index, weight } = map;
        // Rows without entries read neither indices nor weights.
        layout::Rows { first: self.constant(first), index: self.constant(index), weight: self.constant(weight) }
    }

    /// The address of a constant; 0 if the model lacks it.
    fn constant(&self, region: Region) -> u64 {
        if region.bytes == 0 { 0 } else { self.constants.address() + region.offset as u64 }
    }

    /// The kernels' description of frames, filled with the model's values. The caller has to set the frames' arrays.
    pub(super) fn frames(&self, work: &Work<'_>, rows: &Rows) -> Frames {
        let quantiser = &self.quantiser;
        Frames {
            count: rows.count as u64,
            width: self.width as u64,
            quality: work.at(rows.quality),
            offset: self.constant(quantiser.offset),
            reciprocal_step: self.constant(quantiser.reciprocal_step),
            step: self.constant(quantiser.step),
            analysis: self.constant(quantiser.analysis),
            synthesis: self.constant(quantiser.synthesis),
            sparse_analysis: self.rows(quantiser.sparse_analysis),
            sparse_synthesis: self.rows(quantiser.sparse_synthesis),
            low: self.y_range.0.into(),
            high: self.y_range.1.into(),
            scales: self.constant(quantiser.scales),
            bank: self.constant(self.target.tables),
            boundaries: self.constant(self.target.boundaries),
            logarithms: self.constant(quantiser.logarithms),
            ..Frames::default()
        }
    }

    /// Describes a part of lanes: W's values, \[ΣT, C\], or Y's, \[ΣT, E\], with their tables and shifts.
    pub(super) fn coding(&self, part: Part, (lanes, count): (u64, usize), bytes: u64, values: u64) -> Coding {
        let (bank, range, tables) = match part {
            Part::W => (self.hyper_prior, self.w_range, (0, 0)),
            Part::Y { tables, shifts } => (self.target, self.y_range, (tables, shifts)),
        };
        Coding {
            tables: self.constant(bank.tables),
            boundaries: self.constant(bank.boundaries),
            bytes,
            lanes,
            count: count as u64,
            own_tables: tables.0,
            shifts: tables.1,
            values,
            low: range.0.into(),
            high: range.1.into(),
            part: matches!(part, Part::Y { .. }).into(),
        }
    }

    /// The lanes of a chunk whose first frame is row `first` of a step.
    pub(super) fn lanes(
        &self,
        quality: usize,
        first: usize,
        frames: usize,
        lanes: usize,
    ) -> impl Iterator<Item = Lane> {
        let (width, channels) = (self.width, self.channels);
        (0..lanes).map(move |lane| {
            let span = lane_span(frames, lanes, lane);
            let part = |size: usize| layout::Part {
                first: ((first + span.start) * size) as u64,
                count: (span.len() * size) as u64,
                width: size as u64,
                ..layout::Part::default()
            };
            let w = layout::Part { channels: channels as u64, base: (quality * channels) as u64, ..part(channels) };
            Lane { range: u64::MAX, parts: [w, layout::Part { finish: 1, ..part(width) }], ..Lane::default() }
        })
    }

    /// Launches kernels that compute the crc of each row of W and of Y.
    ///
    /// # Safety
    /// The addresses meet the conditions of `Work::launch`, with `rows` rows of W and of Y, and the regions have room
    /// for as many crcs.
    pub(super) unsafe fn digest(
        &self,
        work: &Work<'_>,
        rows: usize,
        (w, y): (u64, u64),
        (of_w, of_y): (Region, Region),
    ) -> Result<()> {
        for (values, width, crcs) in [(w, self.channels, of_w), (y, self.width, of_y)] {
            let (rows, width) = (rows as u64, width as u64);
            // SAFETY: the caller guarantees it.
            unsafe { work.launch(&Launch::Digest { values, rows, width, crcs: work.at(crcs) })? };
        }
        Ok(())
    }
}

/// A part of a lane's values.
#[derive(Clone, Copy)]
pub(super) enum Part {
    W,
    /// Where the values' tables and shifts are.
    Y {
        tables: u64,
        shifts: u64,
    },
}
