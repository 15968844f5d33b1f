"""The four ways out, one module each; ``base`` says what they promise. Import the one that is used."""
