terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }

  # The one state that can't be in the bucket before there is a bucket. It names a bucket, a key and a role and holds no
  # secret: keep the file, or import them again should it be lost.
  backend "local" {}
}
