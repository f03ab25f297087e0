use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::PairRecord;
use crate::spec::CellSpec;

/// What one optimisation earns: alone, on top of none, and last, on top of all others. The two differ where
/// optimisations need or replace each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LadderStep {
    /// The optimisation.
    pub optimization: String,
    /// What the cells share: their label, the variant left open.
    pub cells: String,
    /// `default-with-<optimisation>` against `default`.
    pub alone: Option<PairRecord>,
    /// `example` against `example-without-<optimisation>`.
    pub last: Option<PairRecord>,
}

impl LadderStep {
    /// The same with the figures that `compared` finds for each pair.
    pub(super) fn filled(self, compared: impl Fn(PairRecord) -> Option<PairRecord>) -> Self {
        Self { alone: self.alone.and_then(&compared), last: self.last.and_then(&compared), ..self }
    }
}

/// The steps that a plan's variants make, in the order of the plan.
pub(super) fn ladder(plan: &[CellSpec]) -> Vec<LadderStep> {
    let mut steps: Vec<LadderStep> = Vec::new();
    for cell in plan {
        let Some((whole, optimization, alone)) = parts(&cell.variant) else { continue };
        let twin = CellSpec { variant: whole.to_owned(), ..cell.clone() };
        if !plan.contains(&twin) {
            continue;
        }
        let cells = CellSpec { variant: "*".to_owned(), ..cell.clone() }.label();
        let known = steps.iter().position(|step| step.cells == cells && step.optimization == optimization);
        let index = known.unwrap_or_else(|| {
            steps.push(LadderStep { optimization: optimization.to_owned(), cells, alone: None, last: None });
            steps.len() - 1
        });
        if alone {
            steps[index].alone = Some(PairRecord::of(&twin, cell));
        } else {
            steps[index].last = Some(PairRecord::of(cell, &twin));
        }
    }
    steps
}

/// The variant that another adds an optimisation to or leaves one out of, the optimisation, and whether it is added.
fn parts(variant: &str) -> Option<(&str, &str, bool)> {
    let with = variant.split_once("-with-").map(|(whole, name)| (whole, name, true));
    with.or_else(|| variant.split_once("-without-").map(|(whole, name)| (whole, name, false)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::fixtures::planned;

    #[test]
    fn each_optimisation_is_added_alone_and_left_out_alone() {
        let cell = planned().plan[0].clone();
        let plan = |variants: &[&str]| -> Vec<CellSpec> {
            variants.iter().map(|variant| CellSpec { variant: (*variant).to_owned(), ..cell.clone() }).collect()
        };
        let all = ["default", "example", "default-with-rope", "example-without-rope", "example-without-loss"];
        let steps = ladder(&plan(&all));
        let shape: Vec<_> =
            steps.iter().map(|step| (step.optimization.as_str(), step.alone.is_some(), step.last.is_some())).collect();
        assert_eq!(shape, [("rope", true, true), ("loss", false, true)]);
        let cells = plan(&all);
        let last = steps[0].last.as_ref().expect("it is left out");
        assert_eq!((&last.baseline, &last.candidate), (&cells[3].id(), &cells[1].id()));
        assert!(ladder(&plan(&["default", "example-without-rope"])).is_empty());
    }
}
