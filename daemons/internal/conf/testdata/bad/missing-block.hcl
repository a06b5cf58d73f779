log {}
