//! Progress bars on standard error, where that is a terminal.

use std::{
    collections::HashMap,
    io::{self, IsTerminal as _},
    sync::Mutex,
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::{
    image::{NoProgress, Progress},
    report::escape::escape,
};

/// Bars where somebody looks at them.
pub fn progress(wanted: bool) -> Box<dyn Progress> {
    if wanted && io::stderr().is_terminal() {
        Box::new(Bars::default())
    } else {
        Box::new(NoProgress)
    }
}

/// A bar for each blob that is on its way.
#[derive(Default)]
struct Bars {
    all: MultiProgress,
    bars: Mutex<HashMap<String, ProgressBar>>,
}

impl Bars {
    fn with(&self, id: &str, work: impl FnOnce(&ProgressBar)) {
        let bars = self.bars.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(bar) = bars.get(id) {
            work(bar);
        }
    }
}

impl Progress for Bars {
    fn blob_started(&self, id: &str, total: Option<u64>) {
        let (bar, template) = match total {
            Some(total) => (
                ProgressBar::new(total),
                "{prefix} {bar:30} {binary_bytes}/{binary_total_bytes} {eta}",
            ),
            None => (ProgressBar::no_length(), "{prefix} {spinner} {binary_bytes}"),
        };
        let style = ProgressStyle::with_template(template);
        let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(escape(id).into_owned());
        let mut bars = self.bars.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(old) = bars.insert(id.to_owned(), self.all.add(bar)) {
            old.finish_and_clear();
        }
    }

    fn blob_advanced(&self, id: &str, bytes: u64) {
        self.with(id, |bar| bar.inc(bytes));
    }

    fn blob_finished(&self, id: &str) {
        self.with(id, ProgressBar::finish_and_clear);
    }
}
