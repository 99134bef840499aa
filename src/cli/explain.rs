//! `filtergate explain`.

use clap::Args;

use crate::{report::explain, verdict::Rule};

use super::{CliError, exit::Exit, output};

/// List the rules, or say what one of them means and what to do
#[derive(Debug, Args)]
pub struct Explain {
    /// A rule, such as link/missing-import, or the first part of several
    #[arg(value_name = "RULE")]
    rule: Option<String>,
}

impl Explain {
    /// Prints what was asked for.
    pub fn execute(&self) -> Result<Exit, CliError> {
        let name = self.rule.as_deref().unwrap_or_default();
        let text = match Rule::from_name(name) {
            Some(rule) => explain::rule(rule),
            None => {
                let family = name.strip_suffix('/').unwrap_or(name);
                let rules: Vec<_> = Rule::ALL
                    .iter()
                    .copied()
                    .filter(|rule| {
                        family.is_empty()
                            || rule.name().split('/').next().is_some_and(|first| first == family)
                    })
                    .collect();
                if rules.is_empty() {
                    return Err(CliError::Usage(format!(
                        "there is no rule {}; `filtergate explain` lists them all",
                        crate::report::escape::quote(name)
                    )));
                }
                explain::list(&rules)
            }
        };
        output::print(&text)?;
        Ok(Exit::Pass)
    }
}
