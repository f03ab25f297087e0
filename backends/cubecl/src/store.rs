use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use burnmark_backend_api::{TunedKey, TuningContents, TuningEvents, TuningStore};
use cubecl_environment::bundle::{self, BundleFormat, ExportOptions};
use cubecl_environment::environment;
use cubecl_environment::persistence::{Access, Database};
use cubecl_environment::records::Records;

use crate::tuning::{ANSWERS, Tuned, events, known};

/// Namespaces that tell how answers came to be begin so.
const RECORDS: &str = "records";

/// CubeCL's environments, one to a folder.
pub struct Store;

impl TuningStore for Store {
    fn contents(&self, folder: &Path) -> Result<TuningContents, String> {
        let Some(file) = database(folder) else { return Ok(TuningContents::default()) };
        let database = open(&file)?;
        let mut last: HashMap<(String, String), TunedKey> = HashMap::new();
        for record in Records::new(&database).read::<Tuned>() {
            let tuned = record.record.told(0);
            last.insert((tuned.table.clone(), tuned.key.clone()), tuned);
        }
        let mut tuned: Vec<TunedKey> = last.into_values().collect();
        tuned.sort_by(|a, b| b.wall_ns.cmp(&a.wall_ns).then_with(|| a.key.cmp(&b.key)));
        Ok(TuningContents { answers: known(&database), kernels: kernels(&database), tuned })
    }

    fn events(&self, folder: &Path, process: u32, since: SystemTime) -> Result<TuningEvents, String> {
        let file = database(folder).ok_or_else(|| format!("there is no tuning cache in `{}`", folder.display()))?;
        events(&open(&file)?, process, since).ok_or_else(|| {
            format!("nothing was recorded in `{}`; its folder has to be one that can be written", file.display())
        })
    }

    fn export(&self, folder: &Path, to: &Path) -> Result<(), String> {
        database(folder).ok_or_else(|| format!("there is no tuning cache in `{}`", folder.display()))?;
        if database(to).is_some() {
            return Err(format!("`{}` holds a tuning cache already; name another folder", to.display()));
        }
        std::fs::create_dir_all(to).map_err(|error| format!("cannot make `{}`: {error}", to.display()))?;
        let options = ExportOptions {
            name: "burnmark".to_owned(),
            excluded_namespaces: vec![RECORDS.to_owned()],
            format: BundleFormat::Sqlite,
            ..ExportOptions::default()
        };
        let file = to.join(environment::file_name(&environment::active()));
        bundle::export(&[folder], file, &options).map(drop).map_err(|error| error.to_string())
    }
}

/// The active environment's file in a folder, if there is one.
fn database(folder: &Path) -> Option<PathBuf> {
    Some(folder.join(environment::file_name(&environment::active()))).filter(|file| file.exists())
}

fn open(file: &Path) -> Result<Database, String> {
    Database::open_at(file, Access::ReadOnly)
        .map_err(|error| format!("`{}` cannot be read as a tuning cache: {error}", file.display()))
}

fn kernels(database: &Database) -> usize {
    let tables = database.namespaces().into_iter();
    let tables = tables.filter(|name| !name.starts_with(ANSWERS) && !name.starts_with(RECORDS));
    tables
        .map(|table| {
            let mut count = 0;
            database.scan(&table, &mut |_, _| count += 1);
            count
        })
        .sum()
}
