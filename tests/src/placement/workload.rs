//! What there is to do.

use super::{Model, Prompt, SetUp};

/// How prompts come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrivals {
    /// All at once.
    Batch,
    /// One after the other, so that the workers are busy for this part of the time.
    Stream(f64),
}

/// So many prompts of one model: all at once, each as long.
#[must_use]
pub fn batch_of(workers: usize, prompts: usize, runs: u64, load: u64) -> SetUp {
    SetUp {
        workers,
        gpu_gib: None,
        models: vec![Model { name: "qwen2.5:7b".to_owned(), load, gib: 5 }],
        prompts: vec![Prompt { model: 0, arrives: 0, runs }; prompts],
        max_wait: 600_000,
    }
}

/// Eight models, the n-th wanted n times as seldom as the first (Zipf), answers of 0.2 to 1 s,
/// loads of 4 to 12 s, two of the smaller models fit on a GPU together.
#[must_use]
pub fn mixed(workers: usize, prompts: usize, arrivals: Arrivals, max_wait: u64) -> SetUp {
    let mut rng = fastrand::Rng::with_seed(4);
    let sizes = [5, 3, 6, 4, 2, 5, 3, 6];
    let models: Vec<Model> = (1..)
        .zip(sizes)
        .map(|(number, gib)| Model { name: format!("model-{number}"), load: gib * 2_000, gib })
        .collect();
    let total: f64 = (1..=models.len()).map(share).sum();
    let pick = |rng: &mut fastrand::Rng| {
        let mut at = rng.f64() * total;
        (0..models.len() - 1).find(|model| {
            at -= share(model + 1);
            at < 0.0
        })
    };
    let mut all: Vec<Prompt> = (0..prompts)
        .map(|_| Prompt {
            model: pick(&mut rng).unwrap_or(models.len() - 1),
            arrives: 0,
            runs: rng.u64(200..=1_000),
        })
        .collect();
    if let Arrivals::Stream(busy) = arrivals {
        spread(&mut all, workers, busy, &mut rng);
    }
    SetUp { workers, gpu_gib: Some(8), models, prompts: all, max_wait }
}

/// The prompts come at random times, so that the workers are busy for this part of the time.
fn spread(all: &mut [Prompt], workers: usize, busy: f64, rng: &mut fastrand::Rng) {
    let work: u64 = all.iter().map(|prompt| prompt.runs).sum();
    let span = work as f64 / busy / workers as f64;
    let mut times: Vec<u64> = all.iter().map(|_| (rng.f64() * span) as u64).collect();
    times.sort_unstable();
    all.iter_mut().zip(times).for_each(|(prompt, time)| prompt.arrives = time);
}

/// Anything: one to five workers, one to nine models of any size, demand, load and answer, GPUs
/// that hold several of them, one, or of which nothing is known, more or less busy, with more or
/// less patience. The same for the same seed.
#[must_use]
pub fn random(seed: u64, prompts: usize) -> SetUp {
    let mut rng = fastrand::Rng::with_seed(seed);
    let workers = rng.usize(1..=5);
    let models: Vec<Model> = (1..=rng.u64(1..=9))
        .map(|number| {
            let (load, gib) = (rng.u64(500..=15_000), rng.u64(1..=7));
            Model { name: format!("model-{number}"), load, gib }
        })
        .collect();
    let (skew, longest) = (rng.u32(0..=3), rng.u64(100..=4_000));
    let mut all: Vec<Prompt> = (0..prompts)
        .map(|_| {
            let at = (0..=skew).fold(1.0, |at, _| at * rng.f64());
            let model = (at * models.len() as f64) as usize;
            Prompt { model, arrives: 0, runs: rng.u64(longest / 4..=longest) }
        })
        .collect();
    let busy = 0.2 + 0.7 * rng.f64();
    spread(&mut all, workers, busy, &mut rng);
    let gpu_gib = [None, Some(8), Some(12)][rng.usize(0..3)];
    SetUp { workers, gpu_gib, models, prompts: all, max_wait: rng.u64(10_000..=300_000) }
}

/// The n-th model's part.
fn share(number: usize) -> f64 {
    1.0 / number as f64
}
