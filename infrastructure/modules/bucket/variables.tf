variable "name" {
  description = "Name of the bucket."
  type        = string
}

variable "kms_key_arn" {
  description = "Key that encrypts objects. Null: S3's own keys, for writers that know no other."
  type        = string
  default     = null
}

variable "expire_after_days" {
  description = "Days after which objects are deleted. 0: never."
  type        = number
  default     = 0
}

variable "keep_versions_days" {
  description = "Days for which a version stays after it was overwritten or deleted."
  type        = number
  default     = 30
}

variable "policy_documents" {
  description = "Statements of the bucket's policy beside the one that demands TLS, as JSON documents."
  type        = list(string)
  default     = []
}

variable "deletable" {
  description = "The bucket may be destroyed with what is in it."
  type        = bool
  default     = false
}
