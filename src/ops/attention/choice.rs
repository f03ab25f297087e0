//! Which kernels work through whole sequences: products of small matrices where the device has them, plain units
//! elsewhere, each at several sizes of a tile. The tuner answers; its questions stay the same while a cache fills.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use burn_cubecl::CubeTuneId;
use cubecl::ir::ElemType;
use cubecl::tune::{AutotuneKey, LocalTuner, Tunable, TunableSet, TuneGroup, local_tuner};
use serde::{Deserialize, Serialize};

use super::matrices::MatrixTile;
use super::passes::{Backward, Choice, Forward, Pass};
use super::units::Tile;
use crate::ops::cube::{element, processors, tunes};

/// One of a device's choices.
#[derive(Clone)]
enum Candidate {
    /// The largest tile of plain units, or one of half its size.
    Units { halved: bool },
    /// Matrix products on tiles of [`MatrixTile`]'s `planes`, `lefts`, most `passing` and `shares`, for that much work.
    Matrices([usize; 4], RangeInclusive<Work>),
}

/// How much work there is for the device's processors. A kernel of fewer cubes takes as long as one of them, which the tuner
/// cannot tell from what a launch costs: the measure was taken on an H200.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Work {
    /// Tiles of 64 rows make no more cubes than there are processors.
    Little,
    Some,
    /// Tiles of 128 rows leave a cube for every processor.
    Much,
}

/// What the tuner is asked about; of those that suit, the last is what is taken without asking.
const CANDIDATES: [(&str, Candidate); 6] = [
    ("attention_half_units", Candidate::Units { halved: true }),
    ("attention_units", Candidate::Units { halved: false }),
    ("attention_matrices_4_1_64", Candidate::Matrices(EVERYWHERE, Work::Some..=Work::Much)),
    ("attention_matrices_4_1_64_2", Candidate::Matrices([4, 1, 64, 2], Work::Some..=Work::Some)),
    ("attention_matrices_2_1_64_2", Candidate::Matrices(FEW_ROWS, Work::Little..=Work::Some)),
    ("attention_matrices_4_2_32", Candidate::Matrices(MANY_ROWS, Work::Much..=Work::Much)),
];

/// The tile that is there wherever matrices are multiplied.
const EVERYWHERE: [usize; 4] = [4, 1, 64, 1];
const FEW_ROWS: [usize; 4] = [2, 1, 64, 2];
const MANY_ROWS: [usize; 4] = [4, 2, 32, 1];

/// A tile that tests ask for, where it fits, and most slots.
#[cfg(test)]
pub(super) static FORCED: std::sync::Mutex<Option<([usize; 4], usize)>> = std::sync::Mutex::new(None);

/// Tiles of matrix products that the tuner may choose.
#[cfg(test)]
pub(super) fn tiles() -> impl Iterator<Item = [usize; 4]> {
    CANDIDATES.into_iter().filter_map(|(_, candidate)| match candidate {
        Candidate::Matrices(tile, _) => Some(tile),
        Candidate::Units { .. } => None,
    })
}

/// What the answer depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Question {
    query_heads: usize,
    key_value_heads: usize,
    head_dim: usize,
    /// Positions that ask, the next power of two.
    queries: usize,
    /// Positions that are asked, the next power of two.
    keys: usize,
    element: ElemType,
    matrices: bool,
    work: Work,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl AutotuneKey for Question {}

/// Attention and its rows' sums, by the kernel that the tuner chooses.
pub(super) fn forward(pass: Forward) {
    static TUNER: LocalTuner<Question, CubeTuneId> = local_tuner!("forward");
    chosen(&TUNER, pass);
}

/// The gradients of all queries, keys and values, by the kernels that the tuner chooses.
pub(super) fn backward(pass: Backward) {
    static TUNER: LocalTuner<Question, CubeTuneId> = local_tuner!("backward");
    chosen(&TUNER, pass);
}

fn chosen<P: Pass>(tuner: &'static LocalTuner<Question, CubeTuneId>, pass: P) {
    #[cfg(test)]
    if let Some((forced, slots)) = *FORCED.lock().unwrap()
        && let Some(tile) = matrix_tile(&pass, forced)
    {
        return pass.launch(Choice::Matrices(MatrixTile { slots: tile.slots.min(slots), ..tile }));
    }
    let (at, like) = pass.places();
    let question = question(&pass);
    let suiting = || CANDIDATES.into_iter().filter(|(_, candidate)| candidate.suits(&question));
    if !tunes() || suiting().count() == 1 {
        let guess = suiting().rev().find_map(|(_, candidate)| candidate.on(&pass));
        let guess =
            guess.unwrap_or_else(|| panic!("attention: heads {} wide are too much for a cube's memory", at.head_dim));
        return pass.launch(guess);
    }
    let (client, id) = (like.client.clone(), CubeTuneId::new(&like.client, &like.device));
    let candidates: Arc<TunableSet<Question, P, ()>> = tuner.init(&id, candidates::<P>);
    tuner.execute(&id, &client, candidates, pass);
}

fn candidates<P: Pass>() -> TunableSet<Question, P, ()> {
    let same = |_: &Question, pass: &P| pass.clone();
    CANDIDATES.into_iter().fold(TunableSet::new(question::<P>, same), |set, (name, candidate)| {
        let asked = candidate.clone();
        let group = TuneGroup::new(name, move |question: &Question| if asked.suits(question) { 1 } else { -1 });
        let launched = move |pass: P| {
            let choice = candidate.on(&pass).ok_or_else(|| "no such tile on this device".to_owned())?;
            pass.launch(choice);
            Ok::<(), String>(())
        };
        set.with(Tunable::new(name, launched).group(&group, |_| 1))
    })
}

impl Candidate {
    fn suits(&self, question: &Question) -> bool {
        match self {
            Self::Units { .. } => !question.matrices,
            Self::Matrices(_, work) => question.matrices && work.contains(&question.work),
        }
    }

    /// What it is on a device, if it fits there.
    fn on<P: Pass>(&self, pass: &P) -> Option<Choice> {
        let (at, like) = pass.places();
        match self {
            Self::Units { halved } => {
                Tile::fitting(&like.client, at, like.dtype, P::BUFFERS, *halved).map(Choice::Units)
            }
            Self::Matrices(tile, _) => matrix_tile(pass, *tile).map(Choice::Matrices),
        }
    }
}

fn matrix_tile<P: Pass>(pass: &P, tile: [usize; 4]) -> Option<MatrixTile> {
    let (at, like) = pass.places();
    MatrixTile::of::<P>(&like.client, at, like.dtype, tile)
}

fn question<P: Pass>(pass: &P) -> Question {
    let (at, like) = pass.places();
    let cubes = |rows: usize| at.row_tiles(rows).iter().product::<usize>();
    let processors = processors(&like.client);
    let work = if cubes(64) <= processors && matrix_tile(pass, FEW_ROWS).is_some() {
        Work::Little
    } else if cubes(128) >= processors && matrix_tile(pass, MANY_ROWS).is_some() {
        Work::Much
    } else {
        Work::Some
    };
    Question {
        query_heads: at.heads.query,
        key_value_heads: at.heads.key_value,
        head_dim: at.head_dim,
        queries: at.seq.next_power_of_two(),
        keys: (at.past + at.seq).next_power_of_two(),
        element: element(like.dtype),
        matrices: matrix_tile(pass, EVERYWHERE).is_some(),
        work,
    }
}
