"""A plain reference decoder for the Midspan bitstream, written from the text in spec/."""
