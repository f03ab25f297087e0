use comfy_table::{Table, presets};

use super::Plan;
use crate::spec::{CellSpec, Optimizer};

impl Plan {
    /// The cells as a table, then what comes before and after them.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["cell", "parameters", "training", "inference", "generation"]);
        for cell in &self.cells {
            table.add_row(row(cell));
        }
        let lines: Vec<String> = table.to_string().lines().map(|line| line.trim().to_owned()).collect();
        format!(
            "{}\n\n{} cells, {} comparisons, {} verifications before them; nothing was run\n",
            lines.join("\n"),
            self.cells.len(),
            self.pairs.len(),
            self.gates.len()
        )
    }
}

fn row(cell: &CellSpec) -> [String; 5] {
    let none = || "-".to_owned();
    let work = &cell.workloads;
    [
        cell.label(),
        format!("{:.2} M", cell.model.parameter_count() as f64 / 1e6),
        work.training.as_ref().map_or_else(none, |training| {
            let optimizer = if training.optimizer == Optimizer::Adamw { " + adamw" } else { "" };
            format!("{} + {} steps{optimizer}", training.steps.warmup_steps, training.steps.benchmark_steps)
        }),
        work.inference
            .as_ref()
            .map_or_else(none, |steps| format!("{} + {} steps", steps.warmup_steps, steps.benchmark_steps)),
        work.generation.as_ref().map_or_else(none, |generation| {
            format!(
                "{} + {} x ({} -> {} tokens)",
                generation.warmup_iterations, generation.iterations, generation.prompt_tokens, generation.new_tokens
            )
        }),
    ]
}
