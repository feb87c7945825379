//! Corruptions: of bits, of bytes, of whole chunks or messages, and splices with another stream.

use bytes::Bytes;

use crate::selftest::draw::Draw;
use midspan::model::synthetic::Random;

/// A kind of corruption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Damage {
    Flip,
    Burst,
    Insert,
    Delete,
    Truncate,
    Drop,
    Double,
    Swap,
    Replay,
    Two,
    SpliceAtReset,
    Splice,
    Substitute,
}

impl Damage {
    /// How many of [`Damage::ALL`] need no other stream.
    const OF_ONE_STREAM: usize = 10;

    /// Every kind.
    pub(crate) const ALL: [Damage; 13] = [
        Damage::Flip,
        Damage::Burst,
        Damage::Insert,
        Damage::Delete,
        Damage::Truncate,
        Damage::Drop,
        Damage::Double,
        Damage::Swap,
        Damage::Replay,
        Damage::Two,
        Damage::SpliceAtReset,
        Damage::Splice,
        Damage::Substitute,
    ];

    /// Its name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Damage::Flip => "1 to 4 bits flipped",
            Damage::Burst => "2 to 16 bytes in a row overwritten",
            Damage::Insert => "1 to 8 bytes inserted",
            Damage::Delete => "1 to 8 bytes deleted",
            Damage::Truncate => "cut off",
            Damage::Drop => "1 to 3 chunks dropped",
            Damage::Double => "a chunk doubled",
            Damage::Swap => "two chunks swapped",
            Damage::Replay => "1 to 3 earlier chunks again",
            Damage::SpliceAtReset => "another stream from a reset on",
            Damage::Splice => "chunks of another stream",
            Damage::Substitute => "one chunk of another stream",
            Damage::Two => "two of these",
        }
    }
}

/// A chunk or message in transit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    /// Its number. In streams of the same calls, chunks of the same call have the same number.
    pub number: usize,
    /// Whether it is a target that comes as a separate datagram.
    pub datagram: bool,
    /// The bytes on the wire.
    pub bytes: Bytes,
}

/// What corruptions are made from.
#[derive(Debug)]
pub(super) struct Material<'a> {
    /// The stream as it arrives without the corruption, in which targets may be lost or late.
    pub own: &'a [Unit],
    /// Another stream of the same calls with other frames. It is empty if the stream has no identity, because nothing
    /// then distinguishes the two.
    pub other: &'a [Unit],
    /// Numbers of resets and model switches.
    pub resets: &'a [usize],
}

impl Material<'_> {
    /// The kinds of corruption that can be made from it.
    pub(super) fn kinds(&self) -> &'static [Damage] {
        if self.other.is_empty() { &Damage::ALL[..Damage::OF_ONE_STREAM] } else { &Damage::ALL }
    }

    /// The stream after one corruption of some kind. `None` if that changes nothing, or gives the complete other
    /// stream.
    pub(super) fn corrupt(&self, damage: Damage, random: &mut Random) -> Option<Vec<Unit>> {
        let mut units = self.own.to_vec();
        self.apply(damage, &mut units, random);
        let bytes = |units: &[Unit]| units.iter().map(|unit| unit.bytes.clone()).collect::<Vec<_>>();
        let other = damage == Damage::Two && !self.other.is_empty() && units.first() == self.other.first();
        (bytes(&units) != bytes(self.own) && !other).then_some(units)
    }

    fn apply(&self, damage: Damage, units: &mut Vec<Unit>, random: &mut Random) {
        if units.is_empty() {
            return;
        }
        let place = random.below(units.len());
        match damage {
            Damage::Flip => {
                for _ in 0..1 + random.below(4) {
                    edit(units, random, |bytes, at, random| bytes[at] ^= 1 << random.below(8));
                }
            }
            Damage::Burst => edit(units, random, |bytes, at, random| {
                let count = 2 + random.below(15);
                bytes.iter_mut().skip(at).take(count).for_each(|byte| *byte = random.byte());
            }),
            Damage::Insert => edit(units, random, |bytes, at, random| {
                let fresh: Vec<u8> = (0..1 + random.below(8)).map(|_| random.byte()).collect();
                bytes.splice(at..at, fresh);
            }),
            Damage::Delete => edit(units, random, |bytes, at, random| {
                bytes.drain(at..bytes.len().min(at + 1 + random.below(8)));
            }),
            Damage::Truncate => {
                units.truncate(place + 1);
                if let Some(last) = units.last_mut() {
                    last.bytes.truncate(random.below(last.bytes.len().max(1)));
                }
            }
            Damage::Drop => drop(units.drain(place..units.len().min(place + 1 + random.below(3)))),
            Damage::Double => units.insert(place, units[place].clone()),
            Damage::Swap => {
                let other = if random.one_in(2) { place + 1 } else { random.below(units.len()) };
                let last = units.len() - 1;
                units.swap(place, other.min(last));
            }
            Damage::Replay => {
                let first = random.below(place + 1);
                let again = units[first..units.len().min(first + 1 + random.below(3))].to_vec();
                units.splice(place..place, again);
            }
            Damage::SpliceAtReset if !self.resets.is_empty() => {
                let from = random.pick(self.resets);
                // To the end, or up to another reset.
                let to = if random.one_in(2) { usize::MAX } else { random.pick(self.resets) };
                self.splice(units, from, if to > from { to } else { usize::MAX });
            }
            Damage::SpliceAtReset | Damage::Splice => {
                let from = 1 + random.below(self.other.len().max(2) - 1);
                let to = if random.one_in(2) { usize::MAX } else { from + 1 + random.below(8) };
                self.splice(units, from, to);
            }
            Damage::Substitute => {
                let foreign = &self.other[random.below(self.other.len())];
                // It replaces the unit with the same number, or is put anywhere.
                let like = units.iter().position(|unit| unit.number == foreign.number);
                match like.filter(|_| !random.one_in(4)) {
                    Some(like) => units[like] = foreign.clone(),
                    None => units.insert(place, foreign.clone()),
                }
            }
            Damage::Two => {
                let single = |kind: &Damage| *kind != Damage::Two;
                let kinds: Vec<Damage> = self.kinds().iter().copied().filter(single).collect();
                (0..2).for_each(|_| self.apply(random.pick(&kinds), units, random));
            }
        }
    }

    /// Replaces the chunks `from..to` by those of the other stream.
    fn splice(&self, units: &mut Vec<Unit>, from: usize, to: usize) {
        let at = |units: &[Unit], number| units.iter().position(|unit| unit.number >= number).unwrap_or(units.len());
        let foreign = &self.other[at(self.other, from)..at(self.other, to)];
        let (first, behind) = (at(units, from), at(units, to));
        units.splice(first..behind.max(first), foreign.iter().cloned());
    }
}

/// Changes the bytes of one unit. All places in the stream are equally likely.
fn edit(units: &mut [Unit], random: &mut Random, change: impl FnOnce(&mut Vec<u8>, usize, &mut Random)) {
    let total: usize = units.iter().map(|unit| unit.bytes.len()).sum();
    let mut at = random.below(total.max(1));
    for unit in units {
        if at < unit.bytes.len() {
            let mut bytes = unit.bytes.to_vec();
            change(&mut bytes, at, random);
            unit.bytes = bytes.into();
            return;
        }
        at -= unit.bytes.len();
    }
}
