variable "aws_region" {
  description = "Region of the bucket."
  type        = string
  default     = "us-east-1"
}

variable "bucket_prefix" {
  description = "Beginning of the bucket's name; the account's number follows."
  type        = string
  default     = "flowviz-terraform-state"

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{2,48}$", var.bucket_prefix))
    error_message = "The bucket_prefix must be 3 to 49 lower-case letters, digits and dashes: 14 more are appended, and S3 takes 63."
  }
}

variable "drift_repository" {
  description = "GitHub repository, as owner/name, whose scheduled workflow may read the account to look for drift. Null: none."
  type        = string
  default     = null

  validation {
    condition     = var.drift_repository == null || can(regex("^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$", var.drift_repository))
    error_message = "The drift_repository must be owner/name, without a star: whoever matches it may read the account."
  }
}

variable "drift_branch" {
  description = "Branch of that repository on which the workflow runs."
  type        = string
  default     = "main"
}
