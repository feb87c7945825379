//! How the plain decoder judges digests (spec 6.4).

use super::timeline::{Due, Status, Timeline};
use crate::selftest::author::{Chunk, Frame};
use midspan::codec::{DecoderEvent, Verdict};
use midspan::error::ErrorKind;

impl Timeline {
    /// The digest of frames by its definition (6.4), over what `part` returns for each frame.
    fn digest(&self, from: u64, to: u64, part: impl Fn(&Frame) -> (Option<u8>, &[i16], Option<u32>)) -> u32 {
        let identity = self.header.identity.bytes().map_or(&[][..], |bytes| bytes);
        (from..to).fold(crc32fast::hash(identity), |digest, index| {
            let (quality, values, side) = part(&self.entry(index).frame);
            let mut bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            bytes.extend(side.into_iter().flat_map(u32::to_le_bytes));
            let crc = crc32fast::hash(&bytes).to_le_bytes();
            crc32fast::hash(&[&digest.to_le_bytes()[..], quality.as_slice(), &crc].concat())
        })
    }

    /// [DEC-8], [DEC-20]
    pub(super) fn judge(&mut self, chunk: &Chunk) {
        let (from, to) = (self.starts[self.starts.len() - 1], self.next_index());
        let Some((digest_w, digest)) = chunk.digests else { return };
        if self.failed.is_some() {
            return;
        }
        if digest_w != self.digest(self.starts[0], to, |frame| (Some(frame.quality as u8), &frame.w, frame.side)) {
            self.failed = Some(ErrorKind::DigestMismatchW);
            return;
        }
        self.resume = to;
        self.due.push(Due { from, to, digest });
        if self.oldest_pending().is_some() {
            self.events.push_back(DecoderEvent::Verdict { from, to, verdict: Verdict::WConfirmed });
        }
        self.judge_due();
    }

    /// [DEC-10]
    pub(super) fn judge_due(&mut self) {
        let oldest = self.oldest_pending().unwrap_or(self.next_index());
        while let Some(due) = self.due.first().copied().filter(|due| due.to <= oldest) {
            self.due.remove(0);
            let Due { from, to, digest } = due;
            let lost = |index| matches!(self.entry(index).status, Status::Concealed | Status::Dropped);
            let verdict = if (from..to).any(lost) {
                Verdict::YUnverifiable
            } else if self.digest(from, to, |frame| (None, &frame.y, None)) == digest {
                self.confirmed.push((from, to));
                Verdict::YConfirmed
            } else {
                self.failed = Some(ErrorKind::DigestMismatchY);
                return;
            };
            self.events.push_back(DecoderEvent::Verdict { from, to, verdict });
        }
    }
}
