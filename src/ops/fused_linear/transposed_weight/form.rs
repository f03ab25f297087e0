//! What a kernel for weights `[out, in]` is made for, and what follows from it: how many planes a cube has, what they ask for, and
//! how many cubes a processor has room for.

// Columns of a right factor and of a sum.
pub(super) use crate::ops::fused_linear::MOST_ROWS;

/// Rows of a left factor and of a sum.
pub(super) const ROWS: usize = 16;

/// Columns of a left factor, rows of a right one.
pub(super) const DEPTH: usize = 16;

pub(super) const PLANE: usize = 32;

/// Elements of a vector, 16 bytes.
pub(super) const WIDE: usize = 8;

/// Elements of a register.
pub(super) const PAIR: usize = 2;

/// Elements of a row in one step, two products: a vector of each of four units.
pub(super) const STEP: usize = 2 * DEPTH;

/// So many rows are few, others many.
const FEW: usize = 2;

/// Steps that a plane asks for at once if there are planes enough, of a product of few rows with a norm, of many, and of others
/// (`docs/results/decode_rows_h200.json`, `decode_registers_h200.json`, `decode_planes_h200.json`).
const NORMED: usize = 4;
const NORMED_MANY: usize = 8;
const PLAIN: usize = 6;

/// Most steps at once.
const MOST_STEPS: usize = 11;

/// Fewest and most planes.
const PLANES: [usize; 2] = [4, 16];

/// From one row's sums of a plane to the next row's in the cube's memory, so that the units of a product leave them in different banks.
pub(super) const SUMS: usize = 20;

/// Most units that put one element of the result together.
const MOST_SHARES: usize = 4;

/// Registers of a processor, of a unit for a step, and what a unit has besides, of few rows and of many: about as compiled for
/// NVIDIA's 9.0 (`docs/results/decode_registers_h200.json`).
const REGISTERS: usize = 65536;
const OF_STEP: usize = 8;
const BESIDES: [usize; 2] = [32, 64];

/// Bytes of a cube's memory that the device keeps for itself.
const KEPT_BYTES: usize = 1024;

/// What a kernel is made for.
#[expect(clippy::struct_excessive_bools, reason = "each is a part that a kernel has or has not")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TransposedForm {
    /// Rows that are multiplied, and elements of each.
    pub rows: usize,
    pub input: usize,
    pub norms: bool,
    /// Whether the second half of the columns is gated by the first.
    pub gates: bool,
    pub adds: bool,
    /// Whether launches overlap.
    pub overlaps: bool,
    /// Whether every cube makes columns once, or some again and again.
    pub once: bool,
}

impl TransposedForm {
    /// Columns of the result that a cube makes.
    pub fn columns(self) -> usize {
        ROWS / (1 + usize::from(self.gates))
    }

    pub fn units(self) -> usize {
        self.planes() * PLANE
    }

    pub fn planes(self) -> usize {
        let [fewest, most] = PLANES;
        let steps = match (self.norms, self.is_few()) {
            (true, true) => NORMED,
            (true, false) => NORMED_MANY,
            (false, _) => PLAIN,
        };
        self.all_steps().div_ceil(steps).next_power_of_two().clamp(fewest, most)
    }

    pub fn all_steps(self) -> usize {
        self.input / STEP
    }

    /// How often a plane asks.
    pub fn passes(self) -> usize {
        self.all_steps().div_ceil(self.planes() * MOST_STEPS)
    }

    /// Steps that it asks for each time.
    pub fn steps(self) -> usize {
        self.all_steps().div_ceil(self.planes() * self.passes())
    }

    fn is_few(self) -> bool {
        self.rows <= FEW
    }

    /// Cubes that a processor has room for at a time, which has `memory` bytes for theirs.
    pub fn at_once(self, memory: usize) -> usize {
        let [few, many] = BESIDES;
        let of_unit = OF_STEP * self.steps() + if self.is_few() { few } else { many };
        let cubes = (REGISTERS / (of_unit * self.units())).min(memory / (self.memory() + KEPT_BYTES));
        cubes.max(1)
    }

    /// Whether squares are summed up along with the products, and not before them: once, and while there are registers enough.
    pub fn sums_squares_along(self) -> bool {
        self.norms && self.once && self.is_few()
    }

    /// Whether every plane asks once, and all for as many steps.
    pub fn is_even(self) -> bool {
        self.all_steps() == self.planes() * self.steps()
    }

    /// From one plane's sums to the next one's in the cube's memory, so that units that put an element together read different banks.
    pub fn sums_of_plane(self) -> usize {
        (self.rows * SUMS).next_multiple_of(32) + 8
    }

    /// Units that put one element of the result together, a power of two that planes are a multiple of.
    pub fn shares(self) -> usize {
        let most = self.units() / (self.columns() * self.rows);
        1 << most.clamp(1, MOST_SHARES).ilog2()
    }

    /// Bytes of the cube's memory: the rows, what scales their elements, each plane's sums, and those of the rows' squares.
    pub fn memory(self) -> usize {
        let scales = if self.norms { self.input } else { WIDE };
        2 * (self.input * self.rows + scales) + 4 * self.planes() * (self.sums_of_plane() + self.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms() -> impl Iterator<Item = TransposedForm> {
        let kinds = [(false, false), (true, false), (true, true)];
        let sizes = (1..=MOST_ROWS).flat_map(|rows| (1..=400).map(move |steps| (rows, steps * STEP)));
        sizes.flat_map(move |(rows, input)| {
            [false, true].into_iter().flat_map(move |once| {
                let form =
                    |(norms, gates)| TransposedForm { rows, input, norms, gates, adds: !norms, overlaps: true, once };
                kinds.map(form)
            })
        })
    }

    #[test]
    fn planes_ask_for_all_and_units_put_all_together() {
        for form in forms() {
            assert!(form.planes() * form.steps() * form.passes() >= form.all_steps(), "{form:?}");
            assert!(form.steps() <= MOST_STEPS, "{form:?}");
            assert_eq!(form.planes() % form.shares(), 0, "{form:?}");
            assert!(form.shares() * form.columns() * form.rows <= form.units(), "{form:?}");
            assert!(form.rows * SUMS <= form.sums_of_plane(), "{form:?}");
        }
    }

    #[test]
    fn two_cubes_at_a_time_where_registers_and_memory_do() {
        let at_once = |rows, input| {
            let (norms, gates, adds, overlaps, once) = (true, true, false, true, false);
            TransposedForm { rows, input, norms, gates, adds, overlaps, once }.at_once(227 * 1024)
        };
        assert_eq!([at_once(1, 2048), at_once(8, 2048), at_once(8, 8192)], [2, 2, 1]);
    }
}
