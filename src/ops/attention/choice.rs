//! Which kernels work through whole sequences: products of small matrices where the device has them, plain units
//! elsewhere, each at several sizes of a tile. The tuner answers; its questions stay the same while a cache fills.

use std::fmt;
use std::sync::Arc;

use burn_cubecl::CubeTuneId;
use cubecl::client::Client;
use cubecl::ir::ElemType;
use cubecl::tune::{AutotuneKey, LocalTuner, Tunable, TunableSet, TuneGroup, local_tuner};
use serde::{Deserialize, Serialize};

use super::matrices::MatrixTile;
use super::passes::{Backward, Choice, Forward, Pass};
use super::units::Tile;
use crate::ops::cube::{element, processors, tunes};

/// One of a device's choices.
#[derive(Clone, Copy)]
enum Candidate {
    /// The largest tile of plain units, or one of half its size.
    Units { halved: bool },
    /// Matrix products on tiles of [`MatrixTile`]'s `planes`, `lefts`, `passing` and `shares`.
    Matrices([usize; 4]),
}

/// What the tuner is asked about; the first works everywhere.
const CANDIDATES: [(&str, Candidate); 7] = [
    ("attention_units", UNITS),
    ("attention_half_units", Candidate::Units { halved: true }),
    ("attention_matrices_4_1_32", FEWER_KEYS),
    ("attention_matrices_4_1_64", MORE_KEYS),
    ("attention_matrices_4_1_32_2", Candidate::Matrices([4, 1, 32, 2])),
    ("attention_matrices_4_2_32", MORE_ROWS),
    ("attention_matrices_4_2_32_2", Candidate::Matrices([4, 2, 32, 2])),
];

/// What is taken without asking, the first that fits.
const GUESSES: [Candidate; 3] = [MORE_KEYS, FEWER_KEYS, UNITS];

const UNITS: Candidate = Candidate::Units { halved: false };
const FEWER_KEYS: Candidate = Candidate::Matrices([4, 1, 32, 1]);
const MORE_KEYS: Candidate = Candidate::Matrices([4, 1, 64, 1]);
const MORE_ROWS: Candidate = Candidate::Matrices([4, 2, 32, 1]);

/// A tile that tests ask for, where it fits.
#[cfg(test)]
pub(super) static FORCED: std::sync::Mutex<Option<[usize; 4]>> = std::sync::Mutex::new(None);

/// Tiles of matrix products that the tuner may choose.
#[cfg(test)]
pub(super) fn tiles() -> impl Iterator<Item = [usize; 4]> {
    CANDIDATES.into_iter().filter_map(|(_, candidate)| match candidate {
        Candidate::Matrices(tile) => Some(tile),
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
    /// Whether tiles of two left factors leave a cube for every processor: a kernel of fewer takes as long as one of them,
    /// which the tuner cannot tell from what a launch costs.
    many_rows: bool,
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
    if let Some(forced) = *FORCED.lock().unwrap()
        && let Some(choice) = choice(&pass, Candidate::Matrices(forced))
    {
        return pass.launch(choice);
    }
    if !tunes() {
        let guess = GUESSES.into_iter().find_map(|candidate| choice(&pass, candidate));
        return pass.launch(guess.expect("plain units work everywhere"));
    }
    let like = pass.places().1;
    let (client, id) = (like.client.clone(), CubeTuneId::new(&like.client, &like.device));
    let candidates: Arc<TunableSet<Question, P, ()>> = tuner.init(&id, candidates::<P>);
    tuner.execute(&id, &client, candidates, pass);
}

fn candidates<P: Pass>() -> TunableSet<Question, P, ()> {
    let group = |name, fits: fn(&Question) -> bool| {
        TuneGroup::new(name, move |question: &Question| if fits(question) { 1 } else { -1 })
    };
    let units = group("units", |question| !question.matrices);
    let matrices = group("matrices", |question| question.matrices);
    let more_rows = group("more_rows", |question| question.matrices && question.many_rows);
    let same = |_: &Question, pass: &P| pass.clone();
    CANDIDATES.into_iter().fold(TunableSet::new(question::<P>, same), |set, (name, candidate)| {
        let group = match candidate {
            Candidate::Units { .. } => &units,
            Candidate::Matrices([_, 1, ..]) => &matrices,
            Candidate::Matrices(_) => &more_rows,
        };
        let launched = move |pass: P| {
            let choice = choice(&pass, candidate).ok_or_else(|| "no such tile on this device".to_owned())?;
            pass.launch(choice);
            Ok::<(), String>(())
        };
        set.with(Tunable::new(name, launched).group(group, |_| 1))
    })
}

fn choice<P: Pass>(pass: &P, candidate: Candidate) -> Option<Choice> {
    let (at, like) = pass.places();
    let client: &Client = &like.client;
    match candidate {
        Candidate::Units { halved } => Tile::fitting(client, at, like.dtype, P::BUFFERS, halved).map(Choice::Units),
        Candidate::Matrices(tile) => MatrixTile::of(client, at, like.dtype, tile, P::STAYING).map(Choice::Matrices),
    }
}

fn question<P: Pass>(pass: &P) -> Question {
    let (at, like) = pass.places();
    let many_rows = match choice(pass, MORE_ROWS) {
        Some(Choice::Matrices(tile)) => {
            at.row_tiles(tile.staying()).iter().product::<usize>() >= processors(&like.client)
        }
        _ => false,
    };
    Question {
        query_heads: at.heads.query,
        key_value_heads: at.heads.key_value,
        head_dim: at.head_dim,
        queries: at.seq.next_power_of_two(),
        keys: (at.past + at.seq).next_power_of_two(),
        element: element(like.dtype),
        matrices: choice(pass, FEWER_KEYS).is_some(),
        many_rows,
    }
}
