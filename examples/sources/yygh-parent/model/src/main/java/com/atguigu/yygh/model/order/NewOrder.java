package com.atguigu.yygh.model.order;

/** What a booking needs: which schedule, and for whom. */
public record NewOrder(String scheduleId, Long patientId) {
}
