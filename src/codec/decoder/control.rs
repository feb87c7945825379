//! Chunks other than frames: the header, checkpoints, and all that begins or moves a context (spec 6.3, 6.4, 6.6).

use std::sync::Arc;

use super::{Decoder, Queued};
use crate::codec::encoder::{check_prediction, g_y_context};
use crate::codec::event::{DecoderEvent, Verdict};
use crate::engine::{Context, Engine};
use crate::error::{Detail, Error, ErrorKind, Limit, Result};
use crate::number::{to_u64, to_usize};
use crate::stream::Limits;
use crate::wire::{Mode, ModelSwitch, Reset, Seed, StreamHeader};

impl<E: Engine> Decoder<E> {
    /// [MODEL-11] The fingerprint is compared before the first frame; the host digest too.
    pub(in crate::codec) fn open(&mut self, header: &StreamHeader, offset: u64, own_model: bool) -> Result<()> {
        if own_model && header.fingerprint != *self.codec().fingerprint() {
            let known = self.models.iter().find(|engine| *engine.codec().fingerprint() == header.fingerprint);
            match known {
                Some(engine) => self.engine = Arc::clone(engine),
                None => {
                    let error = Error::new(ErrorKind::WrongModel, offset.saturating_add(header.fingerprint_offset()));
                    return Err(error.with(self.other_model(header.fingerprint)));
                }
            }
        }
        if own_model {
            // [SIDE-1] The side flag of the header MUST be set exactly if the model takes side indices; error 506, at
            // the flags.
            let flags = offset.saturating_add(header.flags_offset());
            self.check_side_flag(&self.engine, header.side, flags)?;
            self.check_prediction(&self.engine, header.mode, flags)?;
        }
        let quality_offset = offset.saturating_add(header.quality_offset());
        self.mode = header.mode;
        if own_model {
            self.quality = self.codec().check_quality(header.quality, quality_offset)?;
        }
        // [HOST-1] A decoder that is told which host its frames are for MUST refuse a stream whose header states
        // another host digest, at the digest, or none, at the flags (error 505).
        if let Some(wanted) = self.config.host_digest.filter(|own| header.host_digest != Some(*own)) {
            let at = match header.host_digest {
                Some(_) => quality_offset.saturating_add(1),
                None => offset.saturating_add(header.flags_offset()),
            };
            let detail = Detail::Digest { what: "host digest", wanted, found: header.host_digest };
            return Err(Error::new(ErrorKind::WrongHost, at).with(detail));
        }
        let limits = self.config.limits.min(Limits::declared(header));
        self.max_rewind = limits.max_rewind;
        self.horizon = to_usize(limits.target_horizon);
        self.g_y = Some(self.new_context()?);
        self.begin_context(0);
        Ok(())
    }

    /// Refuses a model that takes side indices where the header's side flag says otherwise, and the other way round.
    fn check_side_flag(&self, engine: &E, flag: bool, offset: u64) -> Result<()> {
        if engine.codec().model().side().is_some() == flag {
            return Ok(());
        }
        let detail = if flag { "the model takes none" } else { "the model takes some" };
        Err(Error::new(ErrorKind::WrongSideFlag, offset).with_detail(detail))
    }

    /// [PRED-3] A model that predicts MUST NOT be used in layered mode; error 507.
    fn check_prediction(&self, engine: &E, mode: Mode, offset: u64) -> Result<()> {
        check_prediction(engine.codec(), mode)
            .map_err(|error| Error::new(error.kind(), offset).with_facts(error.detail()))
    }

    /// An empty context for the model in force. Declared limits cost nothing: memory grows as frames come.
    fn new_context(&self) -> Result<E::Context> {
        g_y_context(&*self.engine, self.max_rewind)
    }

    /// The error for exceeding the caller's memory limit.
    pub(in crate::codec) fn no_room(&self, what: &'static str, found: usize, offset: u64) -> Error {
        let limit = Limit::Own("DecoderConfig::memory_limit");
        let (most, found) = (to_u64(self.config.memory_limit), to_u64(found));
        Error::new(ErrorKind::MemoryLimit, offset).with(Detail::Limit { what, limit, most, found })
    }

    /// The facts of a fingerprint that none of the decoder's models has.
    fn other_model(&self, found: [u8; 32]) -> Detail {
        Detail::Digest { what: "fingerprint", wanted: *self.codec().fingerprint(), found: Some(found) }
    }

    /// [DEC-8] W is judged at once; Y when no target before the digest is pending ([DEC-10]). `offset` is that of the W
    /// digest.
    pub(super) fn judge_digests(&mut self, digest_w: u32, digest_y: u32, offset: u64) -> Result<()> {
        if digest_w != self.digests.digest_w() {
            let detail = Detail::Crc { wanted: self.digests.digest_w(), found: digest_w };
            return Err(Error::new(ErrorKind::DigestMismatchW, offset).with(detail));
        }
        let waiting = self.digests.waiting();
        let (from, to) = self.digests.state(digest_y, offset.saturating_add(4));
        self.resume = to;
        if self.digests.waiting() > waiting {
            self.tell(DecoderEvent::Verdict { from, to, verdict: Verdict::WConfirmed });
        }
        self.judge()
    }

    /// Hands out the verdicts on digests whose Y is settled now.
    pub(super) fn judge(&mut self) -> Result<()> {
        while let Some(judged) = self.digests.next_judged() {
            let stated = judged.stated;
            let verdict = match judged.found {
                None => Verdict::YUnverifiable,
                Some(found) if found == stated.digest_y => Verdict::YConfirmed,
                Some(wanted) => {
                    let detail = Detail::Crc { wanted, found: stated.digest_y };
                    return Err(Error::new(ErrorKind::DigestMismatchY, stated.offset).with(detail));
                }
            };
            if verdict == Verdict::YConfirmed && stated.from <= self.confirmed {
                self.confirmed = self.confirmed.max(stated.to);
            }
            self.tell(DecoderEvent::Verdict { from: stated.from, to: stated.to, verdict });
        }
        Ok(())
    }

    /// Closes the context before frame `index` with the digests that a context reset or model switch states for it. A
    /// decoder that joins here has not followed the context and ignores them (spec 6.6).
    fn close_context(&mut self, index: u64, digest_w: u32, digest_y: u32, offset: u64) -> Result<()> {
        if self.joining {
            (self.joining, self.confirmed, self.resume) = (false, index, index);
            return Ok(());
        }
        let dropped = self.pending.runs().map(|(index, count)| DecoderEvent::TargetsDropped { index, count });
        self.queue.extend(dropped.map(Queued::Event));
        self.digests.end_context();
        self.judge()?;
        self.judge_digests(digest_w, digest_y, offset)
    }

    /// `body_offset` is that of the chunk's body.
    pub(super) fn reset(&mut self, reset: &Reset, body_offset: u64) -> Result<()> {
        let field = |within: usize| body_offset.saturating_add(within as u64);
        let prefix_offset = field(reset.prefix_offset());
        let prefix = reset.fingerprint_prefix;
        let mut engine = Arc::clone(&self.engine);
        if !engine.codec().fingerprint().starts_with(&prefix) {
            // A decoder that joins here finds out which of its models is in force; for others the container has already
            // checked the prefix.
            let known = self.models.iter().find(|engine| engine.codec().fingerprint().starts_with(&prefix));
            let wanted = self.codec().fingerprint().first_chunk().copied().unwrap_or_default();
            let wrong = Error::new(ErrorKind::WrongModelAtReset, prefix_offset);
            let wrong = wrong.with(Detail::Prefix { wanted, found: prefix });
            engine = known.cloned().ok_or(wrong)?;
        }
        // [SIDE-1] A decoder that joins judges the model of the reset or switch.
        let flag = self.reader.header().is_some_and(|header| header.side);
        self.check_side_flag(&engine, flag, prefix_offset)?;
        self.check_prediction(&engine, self.mode, prefix_offset)?;
        let quality = engine.codec().check_quality(reset.quality, field(reset.quality_offset()))?;
        self.close_context(reset.index, reset.digest_w, reset.digest_y, field(reset.digest_offset()))?;
        if !Arc::ptr_eq(&engine, &self.engine) {
            self.engine = engine;
            self.g_y = Some(self.new_context()?);
        }
        self.quality = quality;
        self.begin_context(reset.index);
        self.tell(DecoderEvent::Reset { index: reset.index });
        Ok(())
    }

    /// [DEC-7] A model that this decoder does not have is refused. `body_offset` is that of the chunk's body.
    pub(super) fn switch_model(&mut self, switch: &ModelSwitch, body_offset: u64) -> Result<()> {
        let field = |within: usize| body_offset.saturating_add(within as u64);
        let offset = field(switch.fingerprint_offset());
        let engine = self.models.iter().find(|engine| *engine.codec().fingerprint() == switch.fingerprint);
        let wrong = Error::new(ErrorKind::WrongModel, offset).with(self.other_model(switch.fingerprint));
        let engine = engine.cloned().ok_or(wrong)?;
        // [SIDE-1] Every model that the stream switches to MUST agree with the flag too; error 506, at the fingerprint.
        let flag = self.reader.header().is_some_and(|header| header.side);
        self.check_side_flag(&engine, flag, offset)?;
        self.check_prediction(&engine, self.mode, offset)?;
        let quality = engine.codec().check_quality(switch.quality, field(switch.quality_offset()))?;
        self.close_context(switch.index, switch.digest_w, switch.digest_y, field(switch.digest_offset()))?;
        self.quality = quality;
        self.engine = engine;
        self.g_y = Some(self.new_context()?);
        self.begin_context(switch.index);
        self.tell(DecoderEvent::Model { fingerprint: switch.fingerprint, index: switch.index });
        Ok(())
    }

    /// [DEC-5], [DEC-16]
    pub(super) fn rewind(&mut self, index: u64) -> Result<()> {
        if let Some(state) = &mut self.g_y {
            state.truncate(index.saturating_sub(self.context_start))?;
        }
        let undone = self.digests.next_index().saturating_sub(index);
        self.side_history.rewind(undone);
        self.past_frames.rewind(undone, self.engine.codec().model().hidden_width());
        self.side_queue.clear();
        self.digests.rewind(index);
        self.pending.truncate(index);
        self.confirmed = self.confirmed.min(index);
        self.resume = self.resume.min(index);
        self.judge()?;
        self.tell(DecoderEvent::Rewound { index });
        Ok(())
    }

    /// The value that the stream's digests start from.
    pub(in crate::codec) fn seed(&self) -> Seed {
        self.reader.sequence().map_or(Seed::NONE, crate::stream::Sequence::seed)
    }

    /// An empty context whose first frame is `index`.
    fn begin_context(&mut self, index: u64) {
        if let Some(state) = &mut self.g_y {
            state.reset();
        }
        self.digests.begin(index, u64::from(self.max_rewind), self.seed());
        self.pending.clear();
        self.side_history.clear();
        self.past_frames.clear();
        self.side_queue.clear();
        self.context_start = index;
    }
}
