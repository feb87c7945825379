#[global_allocator]
static A: mimalloc::MiMalloc = mimalloc::MiMalloc;
fn main(){
    let a: Vec<String> = std::env::args().collect();
    let text = std::fs::read_to_string(&a[1]).unwrap();
    let t0 = std::time::Instant::now();
    let t = midspan::host::tokenizer::Tokenizer::train(midspan::host::tokenizer::pieces(&text, 1<<16).into_iter(), 4096).unwrap();
    eprintln!("{:?} vocab {}", t0.elapsed(), t.vocab());
    t.save(std::path::Path::new(&a[2])).unwrap();
    let ids = t.encode_long(&text[..8<<20], 2).unwrap();
    eprintln!("{:?} ids {}", t0.elapsed(), ids.len());
}
