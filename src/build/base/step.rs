//! The step of `faas-jails init` that makes the base.

use super::{Place, Settings, check};
use crate::config::Config;
use crate::fault::Result;
use crate::image::{self, Progress};
use crate::setup::{Item, State};

/// The base, as the configuration has it.
pub struct Step {
    place: Place,
    settings: Option<Settings>,
    images: image::Settings,
    progress: Box<dyn Progress>,
}

impl Step {
    /// The one below the state directory; `progress` hears of what is fetched and unpacked.
    pub fn new(config: &Config, progress: Box<dyn Progress>) -> Self {
        Self {
            place: Place::below(&config.root.join("builder")),
            settings: config.builder.base.clone(),
            images: config.images.settings(),
            progress,
        }
    }
}

impl Item for Step {
    fn name(&self) -> &'static str {
        "builder base"
    }

    fn look(&self) -> Result<State> {
        let Some(Settings { from, sum }) = &self.settings else {
            return Ok(State::Unneeded("no [builder.base] is configured".into()));
        };
        let root = self.place.root();
        let shown = root.display();
        Ok(match self.place.made_from()? {
            None => State::missing(format!("no {shown}"), format!("faas-jails init makes it from {from}")),
            Some(made) if made != *sum => State::missing(
                format!("{shown} was made from {made}"),
                format!("faas-jails init makes it anew from {from}"),
            ),
            Some(_) => match check(&root) {
                Ok(()) => State::Ready(format!("{shown}, from {from}")),
                Err(fault) => State::missing(format!("{shown} is damaged: {fault}"), "run: faas-jails init"),
            },
        })
    }

    fn make(&self) -> Result<bool> {
        match &self.settings {
            Some(settings) => self.place.make(settings, &self.images, &*self.progress).map(|()| true),
            None => Ok(false),
        }
    }

    fn unmake(&self) -> Result<Option<String>> {
        Ok(self.place.remove()?.then(|| self.place.root().display().to_string()))
    }
}
