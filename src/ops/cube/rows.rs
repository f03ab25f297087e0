//! Kernels that work on rows item by item: which units work on what, and what a row is divided by for its norm.

use burn_cubecl::tensor::CubeTensor;
use cubecl::client::Client;
use cubecl::prelude::*;

use super::{
    Team, VECTORS_PER_UNIT, accumulator, cube_sum, cubes, element, inverse_rms, rows_and_columns, vector_size,
};

/// How units share out rows of some items each: a team of them takes a part of a row, and needs no other team for what it has to
/// know of the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shares {
    /// A plane, or where planes are small or cannot be relied on, a whole cube.
    team: Team,
    /// Teams of a cube.
    teams: usize,
    /// Items of a row.
    pub items: usize,
    /// Most items of a unit, asked for at once.
    pub each: usize,
}

/// Fewest units of a plane that are a team by themselves, and units of a cube of several.
const TEAM_UNITS: [usize; 2] = [32, 128];

impl Shares {
    /// Of rows of `items` items, at most `each` of them for a unit.
    pub fn new(client: &Client, items: usize, each: usize) -> Self {
        let [fewest, most] = TEAM_UNITS;
        let whole = Team::new(client, most);
        let (team, teams) = if whole.plane >= fewest {
            (Team { units: whole.plane, ..whole }, whole.units / whole.plane)
        } else {
            (Team::new(client, fewest), 1)
        };
        Self { team, teams, items, each: each.min(items.div_ceil(team.units)).max(1) }
    }

    /// Cubes for so many rows.
    pub fn cubes(self, client: &Client, rows: usize) -> (CubeCount, CubeDim) {
        cubes(client, (rows * self.of_row()).div_ceil(self.teams), self.teams * self.team.units)
    }

    /// Teams that a row needs.
    fn of_row(self) -> usize {
        self.items.div_ceil(self.each * self.team.units).max(1)
    }

    /// Of a team.
    pub fn units(self) -> usize {
        self.team.units
    }
}

/// The row a unit works on; beyond the last, it and its team must stop.
#[cube]
pub(crate) fn row_of(#[comptime] shares: Shares) -> usize {
    (CUBE_POS * shares.teams + UNIT_POS as usize / shares.team.units) / comptime!(shares.of_row())
}

/// A unit's first item of its row; the others follow a team apart each. There may be no such.
#[cube]
pub(crate) fn item_of(#[comptime] shares: Shares) -> usize {
    let team = CUBE_POS * shares.teams + UNIT_POS as usize / shares.team.units;
    let part = team % comptime!(shares.of_row());
    part * comptime!(shares.each * shares.team.units) + UNIT_POS as usize % shares.team.units
}

/// Whether a team asks for all of a row like `row [n]` at once to find its root mean square, as [`row_factor`] does, if its kernel takes
/// the widest vectors and planes have 32 units.
pub(crate) fn asks_at_once(row: &CubeTensor) -> bool {
    let (_, columns) = rows_and_columns(row);
    columns / vector_size(&row.client, columns, &[row.dtype]) <= VECTORS_PER_UNIT * TEAM_UNITS[0]
}

/// Rows by whose root mean square a kernel divides its own.
#[derive(CubeType, CubeLaunch)]
pub(crate) struct NormRows {
    /// Vectors of a row.
    vectors: usize,
    /// Elements of a row.
    columns: InputScalar,
    /// Added to the mean of their squares.
    eps: InputScalar,
}

/// Rows `[.., n]` to divide by, and what is added to the mean of their squares.
pub(crate) type Norm = (CubeTensor, f64);

/// What a kernel whose rows are those of `own`, in vectors of `vector` elements, is told of `norm`; `own` stands for its rows
/// where there is none.
pub(crate) fn norm_rows(norm: Option<Norm>, own: &CubeTensor, vector: usize) -> (CubeTensor, NormRowsLaunch) {
    let (rows, eps) = norm.unwrap_or_else(|| (own.clone(), 0.0));
    let ((_, columns), wide) = (rows_and_columns(&rows), element(accumulator(own.dtype)));
    let scalar = |value| InputScalar::new(value, wide);
    (rows, NormRowsLaunch::new(columns / vector, scalar(columns as f64), scalar(eps)))
}

/// One over the root mean square of row `row` of `x`, for each unit of the team; one, and nothing read, unless `norms`. All must
/// call it.
#[cube]
pub(crate) fn row_factor<F: Float, A: Float, N: Size>(
    x: &[Vector<F, N>],
    row: usize,
    rows: &NormRows,
    #[comptime] norms: bool,
    #[comptime] shares: Shares,
) -> Vector<A, N> {
    let mut factor = Vector::<A, N>::new(A::new(1.0));
    if comptime!(norms) {
        let (first, units) = (row * rows.vectors, comptime!(shares.team.units));
        let unit = UNIT_POS as usize % units;
        let mut squares = Vector::<A, N>::new(A::new(0.0));
        // Rows of usual width are asked for at once.
        #[unroll]
        for i in 0..VECTORS_PER_UNIT {
            let at = unit + i * units;
            let value = Vector::<A, N>::cast_from(x[first + min(at, rows.vectors - 1)]);
            if at < rows.vectors {
                squares += value * value;
            }
        }
        for at in range_stepped(unit + VECTORS_PER_UNIT * units, rows.vectors, units) {
            let value = Vector::<A, N>::cast_from(x[first + at]);
            squares += value * value;
        }
        let squares = cube_sum::<A>(squares.vector_sum(), shares.team);
        factor = Vector::new(inverse_rms::<A>(squares, rows.columns.get::<A>(), rows.eps.get::<A>()));
    }
    factor
}
