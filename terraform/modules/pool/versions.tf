terraform {
  required_version = ">= 1.11"
  required_providers {
    shoal = {
      source  = "shoal/shoal"
      version = ">= 0.1.0"
    }
  }
}
