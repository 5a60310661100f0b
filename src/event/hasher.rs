//! A hasher of a few instructions for small keys that are numbers: offsets, lanes, addresses of partitions. Must never
//! be used for a map whose size a stranger decides: whoever chooses the keys can make them collide.

use std::hash::{BuildHasherDefault, Hasher};

/// For `HashMap<_, _, Plain>`.
pub type Plain = BuildHasherDefault<PlainHasher>;

/// 2⁶⁴ divided by the golden ratio: spreads consecutive numbers over the high bits.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Folds numbers by multiplication.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainHasher(u64);

impl Hasher for PlainHasher {
    fn finish(&self) -> u64 {
        // The table takes its place from the low bits and its tag from the high ones.
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(29) ^ number).wrapping_mul(SPREAD);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn write_i64(&mut self, number: i64) {
        self.write_u64(number.cast_unsigned());
    }

    fn write_i32(&mut self, number: i32) {
        self.write_u64(u64::from(number.cast_unsigned()));
    }
}
