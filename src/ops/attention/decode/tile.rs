use crate::ops::cube::Team;

/// Vectors of keys, and as many of values, that a unit asks for before it uses them.
const IN_FLIGHT: usize = 8;

/// What one cube of a decode step works on: query heads that share a key-value head, and some of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::ops::attention) struct DecodeTile {
    pub team: Team,
    /// Query heads.
    pub group: usize,
    /// Groups of a sequence, and of a key-value head.
    pub groups: usize,
    pub groups_of_head: usize,
    pub head_dim: usize,
    /// Elements of a vector.
    pub vector: usize,
    /// Cubes that share the keys of a head.
    pub splits: usize,
    /// Keys of each.
    pub split_keys: usize,
    /// Whether the newest key and value are not in the cache yet.
    pub appends: bool,
    /// Whether matrix units do the products.
    pub on_matrices: bool,
    /// Whether launches overlap.
    pub overlaps: bool,
}

impl DecodeTile {
    /// Vectors of a head.
    pub(super) fn vectors(self) -> usize {
        self.head_dim / self.vector
    }

    /// Units that share a key, side by side in a plane.
    pub(super) fn sharing(self) -> usize {
        sharing(self.vectors(), self.team.plane)
    }

    /// Vectors of a key that each of them has.
    pub(super) fn each(self) -> usize {
        self.vectors() / self.sharing()
    }

    /// Keys that the cube asks for at a time, and as often one after the other.
    pub(super) fn at_once(self) -> [usize; 2] {
        [self.team.units / self.sharing(), (IN_FLIGHT / self.each()).max(1)]
    }

    /// Elements of a cube's memory: of each part the weighted values, the sums of weights and the largest scores.
    pub(in crate::ops::attention) fn elements(self) -> usize {
        let of_part = if self.on_matrices { self.of_plane() } else { self.group * self.head_dim };
        // A new key and value have half as many bits.
        let new = if self.on_matrices { self.head_dim } else { 0 };
        self.parts() * (of_part + 2 * self.group) + new
    }

    /// Parts that are put together through the cube's memory: of planes, or of units where there are none.
    pub(super) fn parts(self) -> usize {
        self.team.units / self.team.plane
    }
}

/// Units side by side in a plane that share `vectors` evenly, a power of two.
pub(in crate::ops::attention) fn sharing(vectors: usize, plane: usize) -> usize {
    (1 << vectors.trailing_zeros()).min(plane)
}
