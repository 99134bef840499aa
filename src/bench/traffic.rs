//! The streams that a bench sends through a loaded filter.

use crate::exercise::{
    Connection, Exchange, Filter, Incident, Loaded, run_connection, run_exchange,
};

/// What is sent, over and over.
#[derive(Debug, Clone)]
pub enum Traffic {
    /// Exchanges through an HTTP filter.
    Http(Vec<Exchange>),
    /// Connections through a network filter.
    Network(Vec<Connection>),
}

impl Traffic {
    /// What the options have for this kind of filter.
    pub fn of(filter: Filter, exchanges: &[Exchange], connections: &[Connection]) -> Self {
        match filter {
            Filter::Http => Self::Http(exchanges.to_vec()),
            Filter::Network => Self::Network(connections.to_vec()),
        }
    }

    /// Without any.
    pub fn none() -> Self {
        Self::Http(Vec::new())
    }

    /// The names of the streams, in order.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::Http(all) => all.iter().map(|exchange| exchange.name.as_str()).collect(),
            Self::Network(all) => all.iter().map(|connection| connection.name.as_str()).collect(),
        }
    }

    /// Runs the stream with this index; its name is one of [`Self::names`].
    ///
    /// # Errors
    ///
    /// Where the module trapped: what comes after that is another thing.
    pub fn run(&self, index: usize, worker: &mut Loaded) -> Result<(), String> {
        let incidents = match self {
            Self::Http(all) => run_exchange(worker, &all[index], false).1,
            Self::Network(all) => run_connection(worker, &all[index], false).1,
        };
        for incident in incidents {
            if let Incident::Trap(trap) = incident {
                return Err(format!("`{}` trapped: {}", trap.function, trap.reason()));
            }
        }
        if worker.instance.is_failed() {
            return Err("the VM failed".to_owned());
        }
        Ok(())
    }
}
