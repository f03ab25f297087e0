//! The command line: types only.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::compare::Rule;
use crate::config::Flags;
use crate::record::{Grown, Layout, Metric};
use crate::spec::{Mode, Operation, Optimizer, Precision, TuningCache, Workload};

const EXIT_CODES: &str = "\
Exit codes:
  0    everything ran and every check passed
  1    a cell or an output file failed; what was measured is in the results
  2    the command line, the experiment or an input file is wrong; nothing ran
  3    verification failed: the variants do not compute the same
  4    `compare --fail-on`: a figure grew by more than its rule allows
  130  stopped by Ctrl-C; what was measured is in the results";

/// Benchmarks an optimised transformer against the plain one on Burn: time, memory, latency, and proof that both
/// compute the same.
///
/// Without a command it runs the experiment.
#[derive(Debug, Parser)]
#[command(name = "burnmark", version, args_conflicts_with_subcommands = true, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do; without one, `run`.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of `run`.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the experiment: verify, measure, print the summary, write the results (the default)
    Run(Box<RunArgs>),
    /// Prove the numbers: logits, loss, gradients, cached decoding and greedy continuation
    Verify(Box<VerifyArgs>),
    /// Print the cells of the experiment; run nothing
    Plan(Box<ExperimentArgs>),
    /// Measure the operations of the optimised model, each beside the plain composition it stands for
    Ops(Box<OpsArgs>),
    /// Find the largest batch or sequence that fits into memory, for every variant
    Fit(Box<FitArgs>),
    /// Show the measured peaks of devices, which are kept; measure those that are not
    Peaks(Box<PeaksArgs>),
    /// Compare results files: the later ones with the first
    Compare(CompareArgs),
    /// Keep runs in a database, and follow a metric over commits
    History {
        /// The database; the user's if absent
        #[arg(long, value_name = "FILE", global = true)]
        database: Option<PathBuf>,
        /// What to do.
        #[command(subcommand)]
        command: HistoryCommand,
    },
    /// Write a results file as a report: console, Markdown, CSV, or one HTML page
    Report(ReportArgs),
    /// List the devices of every compiled-in backend, and what is missing with its remedy
    Devices(OutputArgs),
    /// Show, export or clear what autotune keeps from run to run
    Tuning {
        /// What to do with it.
        #[command(subcommand)]
        command: TuningCommand,
    },
    /// Show the effective experiment, or the schema of experiment files
    Config {
        /// Which.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print the JSON Schema of the files that this program writes
    Schema {
        /// Of which
        #[arg(value_enum, default_value_t, value_name = "LAYOUT")]
        layout: Layout,
    },
    /// Print what completes this program's flags in a shell
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
    /// One job on standard input, events on standard output
    #[command(name = "__cell", hide = true)]
    Cell,
}

/// What to do with the tuning cache that is kept: the user's, or the folder that `BURNMARK_TUNING_CACHE` names.
#[derive(Debug, Subcommand)]
pub enum TuningCommand {
    /// List what was tuned: question, winner, candidates, time
    Show(OutputArgs),
    /// Copy answers and compiled kernels to a new folder, for `BURNMARK_TUNING_CACHE` on other machines of this kind
    Export {
        /// Where to.
        folder: PathBuf,
    },
    /// Remove it; the next run tunes anew
    Clear,
}

/// What to do with the runs that are kept.
#[derive(Debug, Subcommand)]
pub enum HistoryCommand {
    /// Keep the runs of results files
    Add {
        /// Results files
        #[arg(num_args = 1.., required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Draw a metric over the runs that were kept, cell by cell
    Show {
        /// Which
        #[arg(long, value_enum, default_value_t = Metric::Training, value_name = "METRIC")]
        metric: Metric,
        /// Cells whose name holds this
        #[arg(long, default_value = "", value_name = "TEXT")]
        cell: String,
        /// Print JSON on standard output instead of tables
        #[arg(long)]
        json: bool,
    },
}

/// What of the configuration to show.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the effective experiment as TOML, with where each value came from
    Show(Box<ExperimentArgs>),
    /// Print the JSON Schema of experiment files, for editors
    Schema,
}

/// Which experiment: a file, and flags on top of it.
#[derive(Args, Clone, Debug, Default)]
pub struct ExperimentArgs {
    /// Experiment file (TOML); without one, the built-in default experiment
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Results file
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Processes each cell is measured in; from two on ratios have intervals
    #[arg(long, value_name = "N")]
    pub rounds: Option<usize>,
    /// Sequences per training and inference step
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,
    /// Tokens per sequence
    #[arg(long, value_name = "N")]
    pub seq_length: Option<usize>,
    /// Steps before the first sample
    #[arg(long, value_name = "N")]
    pub warmup_steps: Option<usize>,
    /// Samples of training and inference
    #[arg(long, value_name = "N")]
    pub benchmark_steps: Option<usize>,
    /// No fusion, cheapest autotune
    #[arg(long)]
    pub no_compile: bool,
    /// Execution mode
    #[arg(long, value_enum, value_name = "MODE")]
    pub compile_mode: Option<Mode>,
    /// What a process finds of earlier tuning (comma-separated)
    #[arg(long, value_enum, value_delimiter = ',', value_name = "CACHE")]
    pub tuning_cache: Option<Vec<TuningCache>>,
    /// Backends and devices, such as `flex` (comma-separated)
    #[arg(long, value_delimiter = ',', value_name = "BACKEND")]
    pub backend: Option<Vec<String>>,
    /// Model variants, the baseline first (comma-separated)
    #[arg(long, value_delimiter = ',', value_name = "VARIANT")]
    pub variants: Option<Vec<String>>,
    /// Add each optimisation alone, and leave each out alone
    #[arg(long)]
    pub ladder: bool,
    /// Model family
    #[arg(long, value_name = "FAMILY")]
    pub model: Option<String>,
    /// Workloads to run (comma-separated)
    #[arg(long, value_delimiter = ',', value_parser = workload, value_name = "WORKLOAD")]
    pub workloads: Option<Vec<Workload>>,
    /// Element type
    #[arg(long, value_enum, value_name = "TYPE")]
    pub precision: Option<Precision>,
    /// Optimiser step in training, timed as its own phase
    #[arg(long, value_enum, value_name = "OPTIMIZER")]
    pub optimizer: Option<Optimizer>,
    /// Seed of weights and token ids
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Seconds a cell may take
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Memory a cell may use, in MB of 2^20 bytes; by default 90 % of the machine's
    #[arg(long, value_name = "MB")]
    pub memory_mb: Option<u64>,
}

/// How much to print.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct OutputArgs {
    /// Print device, versions, every phase and every tenth step
    #[arg(short, long, conflicts_with = "quiet")]
    pub verbose: bool,
    /// Print nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
    /// Print JSON on standard output instead of a summary
    #[arg(long)]
    pub json: bool,
}

/// Flags of `run`.
#[derive(Args, Clone, Debug, Default)]
pub struct RunArgs {
    /// The experiment.
    #[command(flatten)]
    pub experiment: ExperimentArgs,
    /// What is printed.
    #[command(flatten)]
    pub print: OutputArgs,
    /// Keep what the results file holds and run only what is missing or failed
    #[arg(long)]
    pub resume: bool,
}

/// Flags of `verify`.
#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    /// The experiment.
    #[command(flatten)]
    pub experiment: ExperimentArgs,
    /// What is printed.
    #[command(flatten)]
    pub print: OutputArgs,
    /// Expected numbers (safetensors): weights, ids, logits, loss, gradients, greedy continuation
    #[arg(long, value_name = "FILE")]
    pub reference: Option<PathBuf>,
}

/// Flags of `ops`.
#[derive(Args, Clone, Debug)]
pub struct OpsArgs {
    /// The experiment, of which sizes, backends, modes, precisions and steps count.
    #[command(flatten)]
    pub experiment: ExperimentArgs,
    /// What is printed.
    #[command(flatten)]
    pub print: OutputArgs,
    /// Which operations (comma-separated); all if none is named
    #[arg(long, value_enum, value_delimiter = ',', value_name = "OPERATION")]
    pub ops: Vec<Operation>,
}

/// Flags of `fit`.
#[derive(Args, Clone, Debug)]
pub struct FitArgs {
    /// The experiment, of which everything counts but steps and the size that is searched for.
    #[command(flatten)]
    pub experiment: ExperimentArgs,
    /// What is printed.
    #[command(flatten)]
    pub print: OutputArgs,
    /// What is made larger
    #[arg(long, value_enum, default_value_t, value_name = "SIZE")]
    pub grow: Grown,
    /// Of which workload a step must fit
    #[arg(long, value_parser = workload, default_value = "training", value_name = "WORKLOAD")]
    pub workload: Workload,
    /// Largest size tried
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), default_value_t = 65536, value_name = "N")]
    pub up_to: u32,
}

/// Flags of `peaks`.
#[derive(Args, Clone, Debug)]
pub struct PeaksArgs {
    /// The experiment, of which backends, modes and precisions count.
    #[command(flatten)]
    pub experiment: ExperimentArgs,
    /// What is printed.
    #[command(flatten)]
    pub print: OutputArgs,
    /// Measure anew what is kept, and keep that
    #[arg(long)]
    pub refresh: bool,
}

/// Flags of `report`.
#[derive(Args, Clone, Debug)]
pub struct ReportArgs {
    /// Results file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// What to write it as
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: ReportFormat,
    /// Where to; standard output if absent
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// What a report is written as.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub enum ReportFormat {
    /// The summary of a run
    #[default]
    Console,
    /// The file itself; one of an older version is lifted to the present layout
    Json,
    /// Tables for issues and commits
    Markdown,
    /// A line for each time of each cell
    Csv,
    /// One page with charts that opens from the disk
    Html,
}

/// Flags of `compare`.
#[derive(Args, Clone, Debug)]
pub struct CompareArgs {
    /// Results files; every later one is compared with the first
    #[arg(num_args = 2.., required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Fail with exit code 4 if a figure grew by more: METRIC>PERCENT%, such as `training>3%` (repeatable). Times count
    /// only where the later run is shown to be slower
    #[arg(long, value_name = "RULE")]
    pub fail_on: Vec<Rule>,
    /// Print JSON on standard output instead of tables
    #[arg(long)]
    pub json: bool,
}

fn workload(text: &str) -> Result<Workload, String> {
    match text {
        "training" => Ok(Workload::Training),
        "inference" => Ok(Workload::Inference),
        "generation" => Ok(Workload::Generation),
        _ => Err("use training, inference or generation".to_owned()),
    }
}

impl ExperimentArgs {
    /// The flags that lie on top of the file.
    #[must_use]
    pub fn flags(&self) -> Flags {
        Flags {
            output: self.output.clone(),
            rounds: self.rounds,
            batch_size: self.batch_size,
            seq_length: self.seq_length,
            warmup_steps: self.warmup_steps,
            benchmark_steps: self.benchmark_steps,
            no_compile: self.no_compile,
            compile_mode: self.compile_mode,
            backends: self.backend.clone(),
            variants: self.variants.clone(),
            ladder: self.ladder,
            tuning_caches: self.tuning_cache.clone(),
            precision: self.precision,
            optimizer: self.optimizer,
            seed: self.seed,
            timeout_s: self.timeout,
            memory_mb: self.memory_mb,
            workloads: self.workloads.clone(),
            model_family: self.model.clone(),
        }
    }
}
