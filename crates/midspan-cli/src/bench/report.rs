//! Figures with their goals, as a table or as JSON.

use serde::Serialize;

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figure {
    /// The heading of the table that it belongs to.
    pub section: &'static str,
    /// What was measured.
    pub name: String,
    /// The measured value. For times, the median over the chunks of a repeat, then the median over
    /// repeats.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// The least of the repeats' medians.
    pub least: Option<f64>,
    /// The goal, if there is one: the value should be at most this.
    pub goal: Option<f64>,
    /// Whether the value meets the goal.
    pub met: Option<bool>,
}

/// All figures of a run, and the setup that they were measured with.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Report {
    /// The model: a path, or "synthetic".
    pub model: String,
    /// E.
    pub hidden_width: usize,
    /// C.
    pub hyper_prior_width: usize,
    /// Frames that attention sees, the longer of both networks.
    pub window: usize,
    /// What did the coding: an arm of the exact network on one core, or a device.
    pub machine: String,
    /// One-frame chunks in a repeat.
    pub frames: usize,
    /// Repeats.
    pub repeats: usize,
    /// Lanes of the chunks that have more than one.
    pub lanes: u16,
    /// Seed of the model and the hidden states.
    pub seed: u64,
    /// The figures.
    pub figures: Vec<Figure>,
}

impl Report {
    /// Adds a figure.
    pub(super) fn add(&mut self, section: &'static str, name: impl Into<String>, value: f64, unit: &'static str) {
        self.push(section, name, value, unit, None, None);
    }

    /// Adds a figure whose goal is at most `goal`.
    pub(super) fn add_with_goal(
        &mut self,
        section: &'static str,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        goal: f64,
    ) {
        self.push(section, name, value, unit, None, Some(goal));
    }

    /// Adds the median and the minimum of the repeats' milliseconds.
    pub(super) fn add_times(
        &mut self,
        section: &'static str,
        name: impl Into<String>,
        repeats: &[f64],
        goal: Option<f64>,
    ) {
        let least = repeats.iter().copied().reduce(f64::min);
        self.push(section, name, super::sessions::median(repeats), "ms a token", least, goal);
    }

    fn push(
        &mut self,
        section: &'static str,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        least: Option<f64>,
        goal: Option<f64>,
    ) {
        let met = goal.map(|goal| value <= goal);
        self.figures.push(Figure { section, name: name.into(), value, unit, least, goal, met });
    }

    /// The table for people.
    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "{} model, E {}, C {}, window {}; {}; {} frames, {} repeats, seed {}\n\
             times: median over the chunks of a repeat, then over repeats; least: the best repeat's median\n",
            self.model,
            self.hidden_width,
            self.hyper_prior_width,
            self.window,
            self.machine,
            self.frames,
            self.repeats,
            self.seed
        );
        let mut section = "";
        for figure in &self.figures {
            if figure.section != section {
                section = figure.section;
                text.push_str(&format!("\n{section:<58}{:>10}  {:<20}{:>9}{:>9}\n", "measured", "", "least", "goal"));
            }
            let least = figure.least.map(number).unwrap_or_default();
            let goal = figure.goal.map(number).unwrap_or_default();
            let met = figure.met.map_or("", |met| if met { "  met" } else { "  missed" });
            let line = format!(
                "  {:<56}{:>10}  {:<20}{least:>9}{goal:>9}{met}",
                figure.name,
                number(figure.value),
                figure.unit
            );
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Formats a figure with as many digits as its size needs.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1_000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_met_or_missed() {
        let mut report = Report::default();
        report.add_with_goal("Overhead", "one frame", 12.5, "bits a frame", 12.0);
        report.add_times("Steps", "encode", &[0.3, 0.1, 0.2], Some(0.2));
        report.add("Steps", "size", 4096.0, "bytes");
        let table = report.table();
        let line = |name: &str| table.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
        assert!(line("one frame").ends_with("missed"), "{table}");
        assert!(line("encode").ends_with("met") && line("encode").contains("0.1000"), "{table}");
        assert!(line("size").ends_with("bytes"), "{table}");
    }
}
