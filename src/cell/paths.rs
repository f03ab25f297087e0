use crate::spec::{Observation, PathProof, Reading};

/// Whether the kernels that a model's optimisations stand for are among those of the step that was watched.
pub(super) fn paths(observation: &Observation, expected: Vec<(String, &[&str])>) -> Reading<Vec<PathProof>> {
    let launched = match &observation.launches {
        Reading::Missing { reason } => return Reading::missing(reason),
        Reading::Read(_) if observation.replayed == Some(true) => {
            return Reading::missing("the kernels of a replayed graph are not seen one by one");
        }
        Reading::Read(step) => &step.kernels,
    };
    let proof = |(optimization, kernels): (String, &[&str])| PathProof {
        optimization,
        kernels: kernels.iter().map(|&kernel| kernel.to_owned()).collect(),
        launched: launched
            .iter()
            .any(|launch| kernels.contains(&launch.kernel.split(" | ").next().unwrap_or_default())),
    };
    Reading::Read(expected.into_iter().map(proof).collect())
}
