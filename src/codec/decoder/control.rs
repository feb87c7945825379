//! What is no frame: the header, checkpoints, and all that begins or moves a context (spec 6.3, 6.4, 6.6).

use std::sync::Arc;

use super::{Decoder, Expected};
use crate::codec::context::Context;
use crate::codec::event::{CheckpointVerdict, DecoderEvent};
use crate::error::{Error, ErrorKind, Result};
use crate::stream::Limits;
use crate::wire::{ModelSwitch, Reset, StreamHeader};

impl<S: Context> Decoder<S> {
    /// [MODEL-11] The fingerprint is compared before the first frame; the host digest and the memory limit too.
    pub(in crate::codec) fn open(&mut self, header: &StreamHeader, offset: u64, own_model: bool) -> Result<()> {
        if own_model && header.fingerprint != *self.codec.fingerprint() {
            let known = self.config.models.iter().find(|codec| *codec.fingerprint() == header.fingerprint);
            match known {
                Some(codec) => self.codec = Arc::clone(codec),
                None => {
                    return Err(Error::new(ErrorKind::WrongModel, offset.saturating_add(header.fingerprint_offset())));
                }
            }
        }
        let quality_offset = offset.saturating_add(header.quality_offset());
        if let (Some(stated), Some(own)) = (header.host_digest, self.config.host_digest)
            && stated != own
        {
            return Err(Error::new(ErrorKind::WrongHost, quality_offset.saturating_add(1)));
        }
        self.mode = header.mode;
        if own_model {
            self.quality = self.codec.check_quality(header.quality, quality_offset)?;
        }
        let limits = self.config.limits.min(Limits::declared(header));
        self.max_rewind = limits.max_rewind;
        self.horizon = usize::try_from(limits.target_horizon).unwrap_or(usize::MAX);
        self.g_y = Some(self.new_state(offset)?);
        self.begin_context(0);
        Ok(())
    }

    /// Bytes that the context of the model in force may take: the network's state, and outputs of pending frames.
    pub(super) fn context_bytes(&self) -> usize {
        let pending = self.codec.g_y().outputs().saturating_mul(4).saturating_mul(self.horizon);
        S::required_bytes(self.codec.g_y(), self.max_rewind).saturating_add(pending)
    }

    /// A context for the model in force, if the memory limit allows it.
    fn new_state(&self, offset: u64) -> Result<S> {
        if self.context_bytes() > self.config.memory_limit {
            return Err(Error::new(ErrorKind::MemoryLimit, offset).with_detail("the declared rewind or horizon"));
        }
        Ok(S::open(self.codec.g_y(), self.max_rewind))
    }

    /// [DEC-8] W is judged at once; Y when no target before the checkpoint is pending ([DEC-10]).
    pub(super) fn checkpoint(&mut self, index: u64, digest_w: u32, digest_y: u32, offset: u64) -> Result<()> {
        if digest_w != self.digests.digest_w() {
            return Err(Error::new(ErrorKind::DigestMismatchW, offset));
        }
        self.expected.push_back(Expected { index, digest_y, offset: offset.saturating_add(4) });
        self.digests.checkpoint();
        Ok(())
    }

    /// The verdict on the oldest checkpoint that waits, if its Y is settled.
    pub(super) fn next_verdict(&mut self) -> Result<Option<CheckpointVerdict>> {
        let Some((index, digest)) = self.digests.next_verdict() else { return Ok(None) };
        let expected = self.expected.pop_front().unwrap_or(Expected { index, digest_y: digest.value, offset: 0 });
        if digest.lost {
            return Ok(Some(CheckpointVerdict::Unverifiable));
        }
        if digest.value != expected.digest_y {
            return Err(Error::new(ErrorKind::DigestMismatchY, expected.offset));
        }
        self.confirmed = index;
        Ok(Some(CheckpointVerdict::Confirmed))
    }

    /// Hands out the verdicts on checkpoints whose Y is settled by now.
    pub(super) fn judge(&mut self) -> Result<()> {
        while let Some(index) = self.expected.front().map(|expected| expected.index) {
            let Some(verdict) = self.next_verdict()? else { break };
            self.queue.push_back(DecoderEvent::Checkpoint { index, verdict });
        }
        Ok(())
    }

    pub(super) fn reset(&mut self, reset: &Reset, quality_offset: u64) -> Result<()> {
        let prefix = reset.fingerprint_prefix;
        if !self.codec.fingerprint().starts_with(&prefix) {
            // A decoder that joins here finds out which of its models is in force; for others the container has judged
            // the prefix.
            let known = self.config.models.iter().find(|codec| codec.fingerprint().starts_with(&prefix));
            let wrong = Error::new(ErrorKind::WrongModelAtReset, quality_offset.saturating_add(1));
            self.codec = known.cloned().ok_or(wrong)?;
            self.g_y = Some(self.new_state(quality_offset)?);
        }
        self.quality = self.codec.check_quality(reset.quality, quality_offset)?;
        self.begin_context(reset.index);
        self.judge()?;
        self.queue.push_back(DecoderEvent::Reset { index: reset.index });
        Ok(())
    }

    /// [DEC-7] A model that this decoder does not have is refused.
    pub(super) fn switch_model(&mut self, switch: &ModelSwitch, offset: u64, quality_offset: u64) -> Result<()> {
        let codec = self.config.models.iter().find(|codec| *codec.fingerprint() == switch.fingerprint);
        let codec = codec.cloned().ok_or_else(|| Error::new(ErrorKind::WrongModel, offset))?;
        self.quality = codec.check_quality(switch.quality, quality_offset)?;
        self.codec = codec;
        self.g_y = Some(self.new_state(offset)?);
        self.begin_context(switch.index);
        self.judge()?;
        self.queue.push_back(DecoderEvent::Model { fingerprint: switch.fingerprint, index: switch.index });
        Ok(())
    }

    /// [DEC-5], [DEC-16]
    pub(super) fn rewind(&mut self, index: u64) -> Result<()> {
        if let Some(state) = &mut self.g_y {
            state.truncate(index.saturating_sub(self.context_start))?;
        }
        self.digests.rewind(index);
        self.pending.truncate(index);
        self.confirmed = self.confirmed.min(index);
        self.judge()?;
        self.queue.push_back(DecoderEvent::Rewound { index });
        Ok(())
    }

    /// An empty context whose first frame is `index`. Verdicts on checkpoints before it are still to be fetched.
    fn begin_context(&mut self, index: u64) {
        if let Some(state) = &mut self.g_y {
            state.reset();
        }
        self.digests.begin(index, u64::from(self.max_rewind));
        self.pending.clear();
        self.context_start = index;
        self.confirmed = self.confirmed.min(index);
    }
}
